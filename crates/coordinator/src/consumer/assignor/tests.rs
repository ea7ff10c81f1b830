//! What every assignor owes every group, over random groups that change step by step; and a few assignments by hand.

use super::*;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn topic(number: u64) -> TopicId {
    TopicId([u8::try_from(number).unwrap(); 16])
}

fn random_group(dice: &mut Dice, is_homogeneous: bool) -> GroupView {
    let topics: Vec<TopicId> = (0..1 + dice.roll(4)).map(topic).collect();
    let mut group = GroupView::default();
    for topic in &topics {
        group.partition_counts.insert(*topic, i32::try_from(dice.roll(12)).unwrap());
    }
    for member in 0..1 + dice.roll(7) {
        group.members.insert(format!("m{member}").into(), random_member(dice, &topics, is_homogeneous));
    }
    forget_unread_topics(&mut group);
    group
}

fn random_member(dice: &mut Dice, topics: &[TopicId], is_homogeneous: bool) -> MemberView {
    let reads = |dice: &mut Dice| is_homogeneous || dice.roll(3) > 0;
    MemberView {
        instance_id: (dice.roll(3) == 0).then(|| format!("i{}", dice.roll(1 << 40)).into()),
        topics: topics.iter().copied().filter(|_| reads(dice)).collect(),
        current: Assignment::default(),
    }
}

/// As in a group: only topics that somebody reads are looked up.
fn forget_unread_topics(group: &mut GroupView) {
    let read: BTreeSet<TopicId> = group.members.values().flat_map(|member| member.topics.clone()).collect();
    group.partition_counts.retain(|topic, _| read.contains(topic));
}

/// A member comes or goes, or a topic grows or ends.
fn disturb(dice: &mut Dice, group: &mut GroupView, is_homogeneous: bool) {
    let topics: Vec<TopicId> = group.partition_counts.keys().copied().collect();
    match dice.roll(4) {
        0 => {
            let id: Arc<str> = format!("m{}", 100 + dice.roll(1_000)).into();
            group.members.insert(id, random_member(dice, &topics, is_homogeneous));
        }
        1 if group.members.len() > 1 => {
            let index = usize::try_from(dice.roll(group.members.len() as u64)).unwrap();
            let id = group.members.keys().nth(index).unwrap().clone();
            group.members.remove(&id);
        }
        2 if !topics.is_empty() => {
            let index = usize::try_from(dice.roll(topics.len() as u64)).unwrap();
            *group.partition_counts.get_mut(&topics[index]).unwrap() +=
                1 + i32::try_from(dice.roll(3)).unwrap();
        }
        _ if topics.len() > 1 => {
            group.partition_counts.remove(&topics[0]);
            group.members.values_mut().for_each(|member| {
                member.topics.remove(&topics[0]);
            });
        }
        _ => {}
    }
    forget_unread_topics(group);
}

/// All partitions once, to members that read them.
fn check_complete(group: &GroupView, assignments: &BTreeMap<Arc<str>, Assignment>) {
    assert_eq!(assignments.keys().collect::<Vec<_>>(), group.members.keys().collect::<Vec<_>>());
    let mut given = BTreeSet::new();
    for (member_id, assignment) in assignments {
        for (topic, partition) in assignment.iter() {
            assert!(group.members[member_id].topics.contains(&topic), "{member_id} does not read {topic}");
            assert!(given.insert((topic, partition)), "{topic}-{partition} was given twice");
        }
    }
    assert_eq!(given, group.partitions().collect(), "partitions were left out or made up");
}

/// Nobody could give a partition to a reader that has two fewer.
fn check_balanced(group: &GroupView, assignments: &BTreeMap<Arc<str>, Assignment>) {
    for (member_id, assignment) in assignments {
        for (topic, _) in assignment.iter() {
            for (other_id, other) in assignments {
                let could_take = group.members[other_id].topics.contains(&topic);
                let gap = assignment.count().saturating_sub(other.count());
                assert!(!could_take || gap < 2, "{member_id} has {gap} more than {other_id}");
            }
        }
    }
}

fn moved(before: &BTreeMap<Arc<str>, Assignment>, after: &BTreeMap<Arc<str>, Assignment>) -> usize {
    let lost =
        |(id, had): (&Arc<str>, &Assignment)| after.get(id).map_or(0, |has| had.difference(has).count());
    before.iter().map(lost).sum()
}

fn play(seed: u64, assignor: Assignor, is_homogeneous: bool) {
    let mut dice = Dice(seed);
    let mut group = random_group(&mut dice, is_homogeneous);
    for _ in 0..12 {
        let assignments = assignor.assign(&group);
        check_complete(&group, &assignments);
        if assignor == Assignor::Uniform {
            check_balanced(&group, &assignments);
        }
        for (member_id, assignment) in &assignments {
            group.members.get_mut(member_id).unwrap().current = assignment.clone();
        }
        assert_eq!(moved(&assignments, &assignor.assign(&group)), 0, "nothing changed, yet partitions moved");
        disturb(&mut dice, &mut group, is_homogeneous);
    }
}

#[test]
fn random_groups_get_every_partition_once_in_balance_and_keep_it() {
    for seed in 0..400 {
        for (assignor, is_homogeneous) in [
            (Assignor::Uniform, true),
            (Assignor::Uniform, false),
            (Assignor::Range, true),
            (Assignor::Range, false),
        ] {
            let played = std::panic::catch_unwind(|| play(seed, assignor, is_homogeneous));
            assert!(played.is_ok(), "seed {seed}, {assignor:?}, homogeneous: {is_homogeneous}");
        }
    }
}

fn group(members: &[(&str, Option<&str>, &[u64])], sizes: &[(u64, i32)]) -> GroupView {
    let member = |(id, instance_id, topics): &(&str, Option<&str>, &[u64])| {
        let view = MemberView {
            instance_id: instance_id.map(Arc::from),
            topics: topics.iter().copied().map(topic).collect(),
            current: Assignment::default(),
        };
        (Arc::from(*id), view)
    };
    GroupView {
        members: members.iter().map(member).collect(),
        partition_counts: sizes.iter().map(|(number, size)| (topic(*number), *size)).collect(),
    }
}

fn of(partitions: &[(u64, i32)]) -> Assignment {
    partitions.iter().map(|(number, partition)| (topic(*number), *partition)).collect()
}

#[test]
fn range_gives_the_same_partitions_of_every_topic_and_static_members_come_first() {
    let group = group(&[("a", None, &[1, 2]), ("b", Some("z"), &[1, 2])], &[(1, 3), (2, 3)]);
    let assigned = Assignor::Range.assign(&group);
    assert_eq!(assigned["b"], of(&[(1, 0), (1, 1), (2, 0), (2, 1)]));
    assert_eq!(assigned["a"], of(&[(1, 2), (2, 2)]));
}

#[test]
fn a_newcomer_takes_no_more_than_its_share() {
    let mut group = group(&[("a", None, &[1]), ("b", None, &[1])], &[(1, 10)]);
    for (id, assignment) in Assignor::Uniform.assign(&group) {
        group.members.get_mut(&id).unwrap().current = assignment;
    }
    let before: BTreeMap<_, _> =
        group.members.iter().map(|(id, member)| (id.clone(), member.current.clone())).collect();
    let newcomer = MemberView { topics: [topic(1)].into(), ..MemberView::default() };
    group.members.insert("c".into(), newcomer);
    let after = Assignor::Uniform.assign(&group);
    assert_eq!((after["a"].count(), after["b"].count(), after["c"].count()), (4, 3, 3));
    assert_eq!(moved(&before, &after), 3);
}

#[test]
fn members_with_few_topics_are_not_starved() {
    let group = group(&[("a", None, &[1, 2]), ("b", None, &[1])], &[(1, 2), (2, 2)]);
    let assigned = Assignor::Uniform.assign(&group);
    assert_eq!(
        (assigned["a"].clone(), assigned["b"].clone()),
        (of(&[(2, 0), (2, 1)]), of(&[(1, 0), (1, 1)]))
    );
}
