//! Every limit of an activity and of its way in, by name.
//!
//! Lengths of text are in Unicode characters unless the name says bytes.

use std::time::Duration;

/// The longest id.
pub const MAX_ID_CHARS: usize = 128;
/// The longest tenant.
pub const MAX_TENANT_CHARS: usize = 128;
/// The longest action.
pub const MAX_ACTION_CHARS: usize = 128;
/// The longest type of an actor or a target.
pub const MAX_TYPE_CHARS: usize = 128;
/// The longest id of an actor or a target.
pub const MAX_ENTITY_ID_CHARS: usize = 256;
/// The longest name of an actor or a target.
pub const MAX_NAME_CHARS: usize = 512;
/// The most targets of one activity.
pub const MAX_TARGETS: usize = 64;
/// The longest user agent.
pub const MAX_USER_AGENT_CHARS: usize = 1024;
/// The longest request id and the longest correlation id.
pub const MAX_REQUEST_ID_CHARS: usize = 256;
/// The longest metadata, as the JSON text that was sent.
pub const MAX_METADATA_BYTES: usize = 32 * 1024;
/// The deepest nesting inside metadata, whose own braces are the first level.
pub const MAX_METADATA_DEPTH: usize = 32;

/// The longest activity in JSON as it is sent: one object, one element of an array, one line.
pub const MAX_ACTIVITY_BYTES: usize = 64 * 1024;
/// The longest record value the writer takes from the topic: an activity with everything spelled out and its envelope.
pub const MAX_RECORD_BYTES: usize = 128 * 1024;
/// The longest body of one object or an array.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of bodies that are held at once, over all requests and beyond the first [`SMALL_BODY_BYTES`] of each: more
/// wait their turn for a while.
pub const MAX_BODIES_BYTES: usize = 16 * 1024 * 1024;
/// A body of at most this many bytes is a small one: small ones, and the beginnings of others, have room of their own, so that
/// a few slow senders of large ones hold up nobody else.
pub const SMALL_BODY_BYTES: usize = 64 * 1024;
/// The most bytes of small bodies, and of beginnings, that are held at once.
pub const MAX_SMALL_BODIES_BYTES: usize = 8 * 1024 * 1024;
/// About what an activity takes at least until it is answered for: its record, the client's copy, and that of the fallback.
pub const ACTIVITY_BYTES: usize = 2 * 1024;
/// The most bytes of records that are not answered for, over all requests whose records have more than [`SMALL_BODY_BYTES`]:
/// more wait their turn for a while.
pub const MAX_RECORDS_BYTES: usize = 16 * 1024 * 1024;
/// The most bytes of the records of small requests that are not answered for.
pub const MAX_SMALL_RECORDS_BYTES: usize = 8 * 1024 * 1024;
/// The most activities in one array.
pub const MAX_ARRAY_ACTIVITIES: usize = 10_000;

/// The longest `Idempotency-Key`, in bytes without its quotes.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;
/// About the most bytes that answers to requests with an `Idempotency-Key` take up; the oldest are forgotten.
pub const MAX_REMEMBERED_BYTES: usize = 8 * 1024 * 1024;
/// The lines at the beginning of a stream with an `Idempotency-Key` that are remembered.
pub const MAX_REMEMBERED_LINES: usize = 10_000;

/// The most lines of a stream that are sent as one batch.
pub const NDJSON_CHUNK_LINES: usize = 500;
/// A stream's batch is sent at the latest when its lines have this many bytes.
pub const NDJSON_CHUNK_BYTES: usize = 256 * 1024;
/// The most batches of one stream that wait for their ack at the same time.
pub const NDJSON_CHUNKS_IN_FLIGHT: usize = 4;
/// The most streams that are read, or whose results are waiting for their callers, at once; more are told to come back.
pub const MAX_NDJSON_STREAMS: usize = 16;
/// How long a stream may stay silent before it is taken for dead.
pub const NDJSON_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a request waits for the fallback after the cluster did not take it.
pub const FALLBACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long of that it waits for the store if there is a spool, which needs the rest.
pub const FALLBACK_STORE_TIMEOUT: Duration = Duration::from_millis(1500);
/// The most requests, or chunks of streams, that wait for the store or for the spool; more are told to come back. What they hold is
/// bounded by the limits of records and of streams already, since it goes when they give up.
pub const FALLBACK_WAITING: usize = 4096;
/// No more requests join a transaction of the fallback that has this many activities.
pub const FALLBACK_BATCH_EVENTS: usize = 2000;
/// The most activities that are published later in one batch.
pub const PUBLISH_BATCH: usize = 500;
/// How long an instance that has nothing to publish waits until it looks for what another has left in a store that they share.
pub const PUBLISH_LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The items of a page unless the caller says otherwise.
pub const DEFAULT_PAGE_ITEMS: usize = 50;
/// The most items of a page.
pub const MAX_PAGE_ITEMS: usize = 500;
/// The most rows one query looks at before it answers with what it found and a cursor to go on from.
pub const MAX_SCANNED_ROWS: usize = 100_000;
/// How many rows it looks at before it looks whether anybody waits for more.
pub const ROWS_BETWEEN_LOOKS: usize = 32;
/// The longest text to search for.
pub const MAX_SEARCH_CHARS: usize = 256;
/// How long a search, or one for the next piece of an export, goes on while its page is not full.
pub const SEARCH_TIME: Duration = Duration::from_millis(500);
/// The most questions that are answered at once; more wait their turn.
pub const MAX_QUERIES: usize = 4;

/// The activities that an export reads and sends at once.
pub const EXPORT_PAGE_ITEMS: usize = 200;
/// The most exports that are under way at once; more are told to come back.
pub const MAX_EXPORTS: usize = 4;
/// How long the reader of an export, of the live tail or of a stream's results may take nothing while it is waited for before
/// it is given up.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is handed over to such a reader at once: whoever takes that, and what the connection buffers, within that time stays.
pub const OUTFLOW_SLICE_BYTES: usize = 64 * 1024;

/// The most readers of the live tail; more are told to come back.
pub const MAX_LISTENERS: usize = 256;
/// The activities that are read at once for the live tail.
pub const LIVE_PAGE_ITEMS: usize = 200;
/// About the most bytes of activities that are handed to the readers of the live tail together.
pub const LIVE_BATCH_BYTES: usize = 256 * 1024;
/// The batches that are kept for slow readers; whoever is slower reads the store.
pub const LIVE_BATCHES: usize = 16;
/// How many slow readers read the store at once; more wait their turn.
pub const LIVE_CATCH_UPS: usize = 1;
/// How often the live tail looks for what another instance has stored.
pub const LIVE_POLL: Duration = Duration::from_secs(1);
/// After how much silence a reader of the live tail gets a sign of life.
pub const LIVE_HEARTBEAT: Duration = Duration::from_secs(15);

/// Between two looks for activities that are past their retention.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(600);

/// The most records that are handed to the writer together.
pub const WRITER_BATCH_RECORDS: usize = 4000;
/// The most bytes of them, which are held in memory.
pub const WRITER_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long the broker holds back what it has for the writer, and up to how many bytes: a fetch wakes half a dozen threads, a
/// transaction costs a sync, and the more records share them the less each costs. It delays what a query sees, never an ack.
pub const WRITER_FETCH_WAIT: Duration = Duration::from_millis(200);

/// How long the partitions of an instance that has ended wait for it, before the others have them. It comes back under its own
/// name, so that a restart within this time moves nothing.
pub const WRITER_SESSION: Duration = Duration::from_secs(10);
/// See [`WRITER_FETCH_WAIT`].
pub const WRITER_FETCH_BYTES: usize = 256 * 1024;
/// How long the writer waits for more after that.
pub const WRITER_WAIT: Duration = Duration::from_millis(50);
/// The shortest time between two commits of the writer's offsets while records flow. What a kill has it read again is known by
/// its ids.
pub const WRITER_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
