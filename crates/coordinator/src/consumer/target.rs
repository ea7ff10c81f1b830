//! The target assignment: what each member is to have in the group's newest epoch.

use std::collections::BTreeMap;

use super::assignor::{GroupView, MemberView};
use super::group::ConsumerGroup;
use super::update::Update;
use super::{records, subscription};
use crate::TopicDirectory;

impl Update<'_> {
    /// Computes a target for the group's epoch, if it has none yet.
    pub(crate) fn retarget(&mut self) {
        if self.group.epoch <= self.group.target_epoch {
            return;
        }
        let offered = &self.world.settings.consumer.assignors;
        let assignor = ConsumerGroup::preferred_assignor(self.group.members.values(), offered);
        let assignments = assignor.assign(&view(&self.group, self.world.topics));
        let group = self.group.to_mut();
        for (member_id, assignment) in assignments {
            if group.target.get(&member_id) != Some(&assignment) {
                self.draft.push(records::target(&group.id, &member_id, &assignment));
                group.target.insert(member_id, assignment);
            }
        }
        group.target_epoch = group.epoch;
        self.draft.push(records::target_epoch(&group.id, group.epoch));
    }
}

fn view(group: &ConsumerGroup, topics: &dyn TopicDirectory) -> GroupView {
    let mut partition_counts = BTreeMap::new();
    for topic in group.subscribed_topics().into_iter().filter_map(|name| topics.by_name(name)) {
        partition_counts.insert(topic.id, topic.partition_count);
    }
    let members = group.members.values().map(|member| {
        let seen = MemberView {
            instance_id: member.instance_id.clone(),
            topics: subscription::topic_ids(group.topics_of(member), topics),
            current: group.target_of(member),
        };
        (member.id.clone(), seen)
    });
    GroupView { members: members.collect(), partition_counts }
}
