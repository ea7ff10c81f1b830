//! Which records of a topic wait for earlier ones of their key: the queues of a group, rebuilt from its `parked` topic.
//!
//! ```text
//! key    <partition>-<offset> of the record in the source topic
//! value  {"letter": "0-17", "standing": "failed" | "behind" | "released", "key": "<hex>"}; a tombstone: it waits no more
//! ```
//!
//! A group's members park and let go; a person's redrive releases the first of a queue, a discard takes any out. A queue is
//! in the order of the source's offsets, and only its first record may have failed.
//!
//! **Invariant:** the state changes by [`ParkedBook::apply`] only, which reads what was committed. **Invariant:** no I/O.

use std::borrow::Cow;
use std::collections::btree_map::Range;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LetterId;
use crate::record::Record;

/// The key of records that only mark a moment: who reads one has read everything that was committed before it.
pub(crate) const BARRIER: &[u8] = b"barrier";

/// What a record in a queue waits for.
///
/// ```
/// use tidings::failure::Standing;
///
/// let waits_for = |standing: Standing| match standing {
///     Standing::Failed => "a person",
///     Standing::Behind => "earlier records of its key",
///     Standing::Released => "its group",
/// };
/// assert_eq!(Standing::Behind.name(), "behind");
/// assert_eq!(waits_for(Standing::Behind), "earlier records of its key");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// For a person: it was rejected, and later records of its key wait for it.
    Failed,
    /// For earlier records of its key; it follows by itself.
    Behind,
    /// For its group, after a redrive.
    Released,
}

impl Standing {
    /// `failed`, `behind` or `released`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Behind => "behind",
            Self::Released => "released",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Failed, Self::Behind, Self::Released].into_iter().find(|standing| standing.name() == name)
    }
}

/// A record that waits, by its place in the source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    pub(crate) letter: LetterId,
    pub(crate) standing: Standing,
}

#[derive(Serialize, Deserialize)]
struct ParkedValue<'a> {
    letter: Cow<'a, str>,
    standing: Standing,
    key: Cow<'a, str>,
}

/// The record that parks a record, or moves it on.
pub(crate) fn parked_record(
    topic: &Arc<str>,
    (partition, offset): (i32, i64),
    key: &[u8],
    parked: Parked,
) -> Record {
    let value = ParkedValue {
        letter: parked.letter.to_string().into(),
        standing: parked.standing,
        key: hex(key).into(),
    };
    let json = serde_json::to_vec(&value).expect("plain fields always serialise");
    Record::new(Arc::clone(topic)).key(format!("{partition}-{offset}")).value(json)
}

/// The record after which it waits no more.
pub(crate) fn gone_record(topic: &Arc<str>, (partition, offset): (i32, i64)) -> Record {
    Record::new(Arc::clone(topic)).key(format!("{partition}-{offset}"))
}

type Queue = BTreeMap<i64, Parked>;

/// What a record of the topic was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// News of this place.
    To((i32, i64)),
    Barrier,
    /// A person's mistake, passed over.
    NotOurs,
}

/// The queues of one source topic and group.
#[derive(Debug, Default)]
pub(crate) struct ParkedBook {
    queues: HashMap<i32, HashMap<Arc<[u8]>, Queue>>,
    /// The key of each place, for tombstones name the place only.
    keys: HashMap<(i32, i64), Arc<[u8]>>,
    /// Offsets of first records that wait for their group, by partition and letter.
    released: HashMap<i32, BTreeMap<LetterId, i64>>,
}

impl ParkedBook {
    /// Applies a record of the topic.
    pub(crate) fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Applied {
        let place = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(parse_place);
        let Some(place) = place else {
            return if key == Some(BARRIER) { Applied::Barrier } else { Applied::NotOurs };
        };
        let Some(value) = value else {
            self.remove(place);
            return Applied::To(place);
        };
        let Ok(ParkedValue { letter, standing, key }) = serde_json::from_slice(value) else {
            return Applied::NotOurs;
        };
        let (Ok(letter), Some(key)) = (letter.parse(), unhex(&key)) else { return Applied::NotOurs };
        self.remove(place);
        self.insert(place, key, Parked { letter, standing });
        Applied::To(place)
    }

    fn insert(&mut self, place: (i32, i64), key: Vec<u8>, parked: Parked) {
        let queues = self.queues.entry(place.0).or_default();
        let key: Arc<[u8]> = match queues.get_key_value(key.as_slice()) {
            Some((shared, _)) => Arc::clone(shared),
            None => key.into(),
        };
        self.keys.insert(place, Arc::clone(&key));
        self.change(place.0, key, |queue| {
            queue.insert(place.1, parked);
        });
    }

    fn remove(&mut self, place: (i32, i64)) {
        if let Some(key) = self.keys.remove(&place) {
            self.change(place.0, key, |queue| {
                queue.remove(&place.1);
            });
        }
    }

    /// Changes a queue, and keeps account of whether its first record waits for the group.
    fn change(&mut self, partition: i32, key: Arc<[u8]>, change: impl FnOnce(&mut Queue)) {
        let queues = self.queues.entry(partition).or_default();
        let queue = queues.entry(Arc::clone(&key)).or_default();
        let released = self.released.entry(partition).or_default();
        if let Some((_, first)) = queue.first_key_value() {
            released.remove(&first.letter);
        }
        change(queue);
        match queue.first_key_value() {
            Some((offset, first)) if first.standing != Standing::Failed => {
                released.insert(first.letter, *offset);
            }
            Some(_) => {}
            None => {
                queues.remove(&key);
            }
        }
    }

    /// How many records wait.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The first record of this key that waits.
    pub(crate) fn first_of(&self, partition: i32, key: &[u8]) -> Option<Parked> {
        self.queue(partition, key)?.first_key_value().map(|(_, first)| *first)
    }

    /// What waits under this place.
    pub(crate) fn get(&self, place: (i32, i64)) -> Option<Parked> {
        let key = self.keys.get(&place)?;
        self.queue(place.0, key)?.get(&place.1).copied()
    }

    /// The first of the queue in which this place stands, and how many stand behind that.
    pub(crate) fn queue_of(&self, place: (i32, i64)) -> Option<((i32, i64), Parked, usize)> {
        let queue = self.queue(place.0, self.keys.get(&place)?)?;
        let (offset, first) = queue.first_key_value()?;
        Some(((place.0, *offset), *first, queue.len() - 1))
    }

    /// All queues: partition, key, the first record, and how many wait behind it.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (i32, &[u8], Parked, usize)> + '_ {
        let keyed =
            self.queues.iter().flat_map(|(partition, queues)| queues.iter().map(|keyed| (*partition, keyed)));
        keyed.filter_map(|(partition, (key, queue))| {
            let (_, first) = queue.first_key_value()?;
            Some((partition, &**key, *first, queue.len() - 1))
        })
    }

    /// Letters and offsets of first records of a partition that wait for their group, by their letters.
    pub(crate) fn released(&self, partition: i32) -> impl Iterator<Item = (LetterId, i64)> + '_ {
        self.released.get(&partition).into_iter().flatten().map(|(letter, offset)| (*letter, *offset))
    }

    /// What stands before this place in its queue, and what stands there and behind it; both in order.
    pub(crate) fn around(
        &self,
        place: (i32, i64),
    ) -> Option<(Range<'_, i64, Parked>, Range<'_, i64, Parked>)> {
        let queue = self.queue(place.0, self.keys.get(&place)?)?;
        Some((queue.range(..place.1), queue.range(place.1..)))
    }

    fn queue(&self, partition: i32, key: &[u8]) -> Option<&Queue> {
        self.queues.get(&partition)?.get(key)
    }
}

fn parse_place(text: &str) -> Option<(i32, i64)> {
    let LetterId { partition, offset } = text.parse().ok()?;
    Some((partition, offset))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Scene {
        book: ParkedBook,
    }

    impl Scene {
        fn park(&mut self, offset: i64, key: &str, standing: Standing) {
            let parked = Parked { letter: LetterId { partition: 0, offset: offset + 100 }, standing };
            let record = parked_record(&"t".into(), (1, offset), key.as_bytes(), parked);
            let applied = self.book.apply(record.key.as_deref(), record.value.as_deref());
            assert_eq!(applied, Applied::To((1, offset)));
            assert_eq!(self.book.get((1, offset)), Some(parked));
        }

        fn gone(&mut self, offset: i64) {
            let record = gone_record(&"t".into(), (1, offset));
            assert_eq!(self.book.apply(record.key.as_deref(), None), Applied::To((1, offset)));
        }

        fn released(&self) -> Vec<i64> {
            self.book.released(1).map(|(_, offset)| offset).collect()
        }
    }

    #[test]
    fn a_queue_moves_on_with_its_first_record() {
        let mut scene = Scene::default();
        scene.park(5, "a", Standing::Failed);
        scene.park(7, "a", Standing::Behind);
        scene.park(6, "b", Standing::Failed);
        assert!(scene.book.first_of(1, b"a").is_some() && scene.book.first_of(0, b"a").is_none());
        assert_eq!(scene.released(), [] as [i64; 0], "a person decides first");
        let (place, first, behind) = scene.book.queue_of((1, 7)).unwrap();
        assert_eq!((place, first.standing, behind), ((1, 5), Standing::Failed, 1));
        scene.park(5, "a", Standing::Released);
        assert_eq!(scene.released(), [5]);
        scene.gone(5);
        assert_eq!(scene.released(), [7], "what waited behind follows by itself");
        scene.park(7, "a", Standing::Failed);
        assert_eq!(scene.released(), [] as [i64; 0], "until it fails, too");
        scene.gone(7);
        scene.gone(7);
        assert!(scene.book.first_of(1, b"a").is_none());
        assert_eq!((scene.book.len(), scene.book.queues[&1].len()), (1, 1));
    }

    #[test]
    fn one_taken_out_of_the_middle_leaves_the_others_in_order() {
        let mut scene = Scene::default();
        scene.park(1, "a", Standing::Failed);
        scene.park(2, "a", Standing::Behind);
        scene.park(3, "a", Standing::Behind);
        scene.gone(2);
        assert_eq!((scene.released(), scene.book.queue_of((1, 3)).unwrap().2), (vec![], 1));
        let (before, rest) = scene.book.around((1, 3)).unwrap();
        assert_eq!((before.count(), rest.count()), (1, 1));
        scene.gone(1);
        assert_eq!(scene.released(), [3]);
    }

    #[test]
    fn what_is_none_of_ours_changes_nothing() {
        let mut book = ParkedBook::default();
        assert_eq!(book.apply(Some(BARRIER), Some(b"x")), Applied::Barrier);
        type Bytes = Option<&'static [u8]>;
        let nonsense: [(Bytes, Bytes); 5] = [
            (None, Some(b"x")),
            (Some(b"x"), Some(b"x")),
            (Some(b"1-2"), Some(b"{}")),
            (Some(b"1-2"), Some(br#"{"letter":"0-1","standing":"failed","key":"abc"}"#)),
            (Some(b"1-2"), Some(br#"{"letter":"01","standing":"failed","key":"ab"}"#)),
        ];
        for (key, value) in nonsense {
            assert_eq!(book.apply(key, value), Applied::NotOurs, "{key:?} {value:?}");
        }
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn keys_of_any_bytes_survive() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!(unhex(""), Some(Vec::new()));
    }
}
