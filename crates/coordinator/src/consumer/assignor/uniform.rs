//! The assignor `uniform` where all members read the same topics.
//!
//! Everybody has the same number of partitions, give or take one, and keeps what it has as far as that allows. Those
//! with most to lose are the ones that may keep one more.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::GroupView;
use crate::consumer::assignment::Assignment;

pub(super) fn assign(group: &GroupView) -> BTreeMap<Arc<str>, Assignment> {
    let (kept, mut free) = group.keep_current();
    let total = free.len() + kept.values().map(Assignment::count).sum::<usize>();
    let Some(least) = total.checked_div(kept.len()) else { return kept };
    let extra = total - least * kept.len();

    let mut order: Vec<(Arc<str>, Assignment)> = kept.into_iter().collect();
    // The sort is stable: equals stay in the order of their ids.
    order.sort_by_key(|(_, assignment)| Reverse(assignment.count()));
    let quota = |rank: usize| least + usize::from(rank < extra);
    for (rank, (_, assignment)) in order.iter_mut().enumerate() {
        if assignment.count() > quota(rank) {
            free.extend(assignment.iter().skip(quota(rank)));
            *assignment = assignment.iter().take(quota(rank)).collect();
        }
    }
    let mut free = free.into_iter();
    for (rank, (_, assignment)) in order.iter_mut().enumerate() {
        for (topic, partition) in free.by_ref().take(quota(rank) - assignment.count()) {
            assignment.insert(topic, partition);
        }
    }
    assert!(free.next().is_none(), "the quotas add up to all partitions");
    order.into_iter().collect()
}
