//! What the cases of power cuts share: cuts before a file operation, and what becomes of syncs meanwhile.

use crate::history::History;
use crate::supervisor::{Call, Decision, Operation, Supervisor};
use crate::volume::{Volume, cut_power_of};

/// What syncs come to.
#[derive(Clone, Copy, PartialEq)]
pub enum Syncs {
    Real,
    /// The broker does not ask.
    None,
    /// The broker asks, and is lied to.
    Pretended,
}

/// Answers syncs without doing them.
pub fn pretend_syncs(call: &Call) -> Decision {
    if call.operation == Operation::Sync { Decision::Pretend } else { Decision::Go }
}

/// Cuts the power, and kills the broker, when it has made so many calls from now on.
pub fn cut_after(supervisor: &Supervisor, calls: usize, volume: &Volume, history: &History, syncs: Syncs) {
    let (mut left, mount_point, history) = (calls, volume.mount_point(), history.clone());
    supervisor.decide(move |call| {
        if left > 0 {
            left -= 1;
            return if syncs == Syncs::Pretended { pretend_syncs(call) } else { Decision::Go };
        }
        history.power_is_cut();
        cut_power_of(&mount_point).expect("cut the power");
        Decision::Kill
    });
}
