//! The assignor `uniform` where members read different topics.
//!
//! Members keep what they have; what is free goes to the reader that has least; then partitions move from those with
//! much to those with little as long as a move narrows the gap by two or more. So in the end no member could give a
//! partition to a reader that has two fewer. Each move makes the sum of the squares of the loads smaller, so it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_model::TopicId;

use super::GroupView;
use crate::consumer::assignment::Assignment;

pub(super) fn assign(group: &GroupView) -> BTreeMap<Arc<str>, Assignment> {
    let member_ids: Vec<&Arc<str>> = group.members.keys().collect();
    let (kept, free) = group.keep_current();
    let mut spread = Spread::new(group, &kept);
    // Topics with few readers first: the others have more ways to make up for it.
    let mut free: Vec<(usize, (TopicId, i32))> =
        free.into_iter().map(|partition| (spread.readers_of(partition.0).len(), partition)).collect();
    free.sort_unstable();
    for (_, (topic, partition)) in free {
        if let Some(reader) = spread.least_loaded_reader(topic) {
            spread.give(reader, topic, partition);
        }
    }
    spread.even_out();
    let assignments = spread.partitions.into_iter().map(|partitions| partitions.into_iter().collect());
    member_ids.into_iter().cloned().zip(assignments).collect()
}

/// Members by their place in the order of ids.
struct Spread {
    readers: BTreeMap<TopicId, Vec<usize>>,
    partitions: Vec<Vec<(TopicId, i32)>>,
}

impl Spread {
    fn new(group: &GroupView, kept: &BTreeMap<Arc<str>, Assignment>) -> Self {
        let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (index, member) in group.members.values().enumerate() {
            for topic in &member.topics {
                readers.entry(*topic).or_default().push(index);
            }
        }
        let partitions =
            group.members.keys().map(|id| kept.get(id).into_iter().flat_map(Assignment::iter).collect());
        Self { readers, partitions: partitions.collect() }
    }

    fn load(&self, member: usize) -> usize {
        self.partitions[member].len()
    }

    fn readers_of(&self, topic: TopicId) -> &[usize] {
        self.readers.get(&topic).map_or(&[], Vec::as_slice)
    }

    fn least_loaded_reader(&self, topic: TopicId) -> Option<usize> {
        self.readers_of(topic).iter().copied().min_by_key(|reader| (self.load(*reader), *reader))
    }

    fn give(&mut self, reader: usize, topic: TopicId, partition: i32) {
        self.partitions[reader].push((topic, partition));
    }

    fn even_out(&mut self) {
        loop {
            let mut has_moved = false;
            for member in 0..self.partitions.len() {
                has_moved |= self.relieve(member);
            }
            if !has_moved {
                return;
            }
        }
    }

    /// Gives away what readers with two fewer can take; the last partitions it got go first.
    fn relieve(&mut self, member: usize) -> bool {
        let before = self.load(member);
        for index in (0..before).rev() {
            let (topic, partition) = self.partitions[member][index];
            let Some(reader) = self.least_loaded_reader(topic) else { continue };
            if self.load(member) >= self.load(reader) + 2 {
                self.partitions[member].remove(index);
                self.give(reader, topic, partition);
            }
        }
        self.load(member) < before
    }
}
