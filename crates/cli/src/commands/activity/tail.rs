//! `tidings activity tail`: activities as they arrive, straight from the topic of any cluster.

use std::time::Duration;

use tidings::reader::{ReadFrom, TopicReader};
use tidings_activity::query::ActionFilter;
use tidings_activity::{Activity, Timestamp, cloud_event};

use crate::args::TailArgs;
use crate::commands::cluster::{REQUEST_TIMEOUT, reach};
use crate::output::print;

/// How long one wait for records lasts; there is another one after it.
const WAIT: Duration = Duration::from_secs(60);

/// Follows until interrupted, or until `--max` were printed.
pub fn run(args: &TailArgs) -> anyhow::Result<()> {
    let cluster = reach(&args.cluster)?;
    let from = if args.from_beginning { ReadFrom::Earliest } else { ReadFrom::Latest };
    let mut reader = TopicReader::open(&cluster, &args.topic, from, REQUEST_TIMEOUT)?;
    let action = args.action.as_deref().map(ActionFilter::parse);
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(record) = reader.next(WAIT)? else { continue };
        let time = record.timestamp_ms.and_then(Timestamp::from_millis).unwrap_or_else(Timestamp::now);
        let activity = match cloud_event::read_record(record.value.as_deref(), &record.headers, time) {
            Ok(activity) => activity,
            Err(error) => {
                eprintln!("{}: {error}", record.position());
                continue;
            }
        };
        let wanted = args.tenant.as_deref().is_none_or(|tenant| *activity.tenant == *tenant)
            && action.as_ref().is_none_or(|action| action.matches(&activity.action));
        if wanted {
            print_one(&activity, args.cluster.json)?;
            left -= 1;
        }
    }
    Ok(())
}

fn print_one(activity: &Activity<'_>, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&format!("{}\n", serde_json::to_string(activity)?));
    }
    let actor = activity.actor.as_ref().map_or("-", |actor| &actor.id);
    let targets: Vec<&str> = activity.targets.iter().map(|target| &*target.id).collect();
    let (at, tenant, action) = (activity.occurred_at, &*activity.tenant, &*activity.action);
    print(&format!("{at}  {tenant}  {action}  {actor}  {}\n", targets.join(", ")))
}
