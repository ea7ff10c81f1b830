//! What a member does about topics that its group leaves to nobody (`unowned`).
//!
//! It changes what it subscribes to, and changes it back in the next generation. A member that joins again with the same makes
//! nobody assign anew, unless it is the one that assigns.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::{Fatal, Runtime};
use crate::consumer::options::{ConsumerOptions, GroupProtocol};
use crate::consumer::poll_limit::{PROBE_TIMEOUT, PollLimit};
use crate::consumer::unowned::Lookout;
use crate::native;

/// How long to wait for the next generation.
const NARROW_MAX: Duration = Duration::from_secs(10);

/// Whether that is under way.
pub(super) struct Reassign {
    /// `None` where the broker assigns.
    lookout: Option<Lookout>,
    narrow: Option<Narrow>,
}

/// A member that has left its retry topics out.
struct Narrow {
    /// The generation that left a topic to nobody.
    generation_id: i32,
    since: Instant,
}

impl Reassign {
    pub(super) fn new(options: &ConsumerOptions, poll_limit: PollLimit) -> Self {
        let is_assigned_by_members = options.protocol != GroupProtocol::Consumer;
        let lookout = is_assigned_by_members.then(|| Lookout::new(poll_limit.cap(options.revoke_wait)));
        Self { lookout, narrow: None }
    }
}

impl Runtime {
    /// Has the group assign anew if it leaves a topic to nobody.
    pub(super) fn look_for_unowned(&mut self) -> Result<(), Fatal> {
        if let Some(narrow) = &self.reassign.narrow {
            let generation_id = native::generation_id(self.consumer.client());
            let is_next = generation_id > 0 && generation_id != narrow.generation_id;
            if is_next || narrow.since.elapsed() > NARROW_MAX {
                self.reassign.narrow = None;
                self.subscribe()?;
            }
            return Ok(());
        }
        let Some(lookout) = &mut self.reassign.lookout else { return Ok(()) };
        let timeout = self.poll_limit.cap(PROBE_TIMEOUT);
        if !lookout.look(&self.consumer, &self.options.group, &self.subscribed, timeout) {
            return Ok(());
        }
        let generation_id = native::generation_id(self.consumer.client());
        self.reassign.narrow = Some(Narrow { generation_id, since: Instant::now() });
        self.subscribe_to(&self.sources)
    }
}
