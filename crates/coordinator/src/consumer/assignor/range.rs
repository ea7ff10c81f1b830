//! The assignor `range`: of each topic, every subscribed member has a run of adjacent partitions.
//!
//! Members come in the order of their instance ids, then the dynamic ones by id. Where all read the same topics and
//! the topics are of one size, a member has the same partitions of each: what a join of streams needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GroupView, MemberView};
use crate::consumer::assignment::Assignment;

pub(super) fn assign(group: &GroupView) -> BTreeMap<Arc<str>, Assignment> {
    let mut order: Vec<(&Arc<str>, &MemberView)> = group.members.iter().collect();
    order.sort_by_key(|(member_id, member)| {
        (member.instance_id.is_none(), member.instance_id.clone(), (*member_id).clone())
    });
    let mut assignments: BTreeMap<Arc<str>, Assignment> =
        group.members.keys().map(|member_id| (member_id.clone(), Assignment::default())).collect();
    for (topic, count) in &group.partition_counts {
        let readers: Vec<&Arc<str>> =
            order.iter().filter(|(_, member)| member.topics.contains(topic)).map(|(id, _)| *id).collect();
        let (Ok(count), Some(least)) = (
            usize::try_from(*count),
            usize::try_from(*count).ok().and_then(|all| all.checked_div(readers.len())),
        ) else {
            continue;
        };
        let extra = count - least * readers.len();
        let mut next = 0;
        for (rank, member_id) in readers.into_iter().enumerate() {
            let Some(assignment) = assignments.get_mut(member_id) else { continue };
            for _ in 0..least + usize::from(rank < extra) {
                assignment.insert(*topic, next);
                next += 1;
            }
        }
    }
    assignments
}
