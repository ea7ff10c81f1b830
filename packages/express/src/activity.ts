/** What an activity of the platform is made of; the platform's guide to its API has the limits. */

/** Who or what: a user, an invoice, a service. */
export interface Entity {
  type?: string;
  id: string;
  name?: string;
}

/** Where a request came from. */
export interface Context {
  ip?: string;
  user_agent?: string;
  request_id?: string;
  correlation_id?: string;
}

/** Who did what, when. */
export interface Activity {
  /** Given by the sender, so that sending again stores nothing twice. */
  id: string;
  tenant: string;
  /** For example `invoice.paid`. */
  action: string;
  actor?: Entity;
  targets?: Entity[];
  context?: Context;
  metadata?: Record<string, unknown>;
  /** RFC 3339. */
  occurred_at: string;
}
