//! Which leader epoch began at which offset, in Kafka's `leader-epoch-checkpoint` format.
//!
//! Owns the list. Invariants: epochs and offsets ascend. It can be rebuilt from the batches, each of
//! which carries its epoch, so it is written with checkpoints and never on the append path.

/// One epoch's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EpochStart {
    epoch: i32,
    start_offset: i64,
}

/// The epochs of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    starts: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// Notes that a batch of `epoch` begins at `offset`; tells whether that is news.
    pub fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        let news = epoch >= 0 && self.starts.last().is_none_or(|last| epoch > last.epoch);
        if news {
            self.starts.push(EpochStart { epoch, start_offset: offset });
        }
        news
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.starts.last().map(|start| start.epoch)
    }

    /// Where an epoch ends, as Kafka answers (KIP-101): the largest epoch not above the one asked for, and the
    /// start of the next one. None above the newest epoch; below the oldest one, where that begins.
    pub fn end_of(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        let behind = self.starts.partition_point(|start| start.epoch <= epoch);
        let floor = behind.checked_sub(1).map(|index| self.starts[index].epoch);
        match self.starts.get(behind) {
            Some(next) => Some((floor.unwrap_or(epoch), next.start_offset)),
            None => (floor == Some(epoch)).then_some((epoch, log_end_offset)),
        }
    }

    /// Drops what begins at or behind `end_offset`.
    pub fn truncate(&mut self, end_offset: i64) {
        self.starts.retain(|start| start.start_offset < end_offset);
    }

    /// The file's contents.
    pub fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.starts.len());
        for EpochStart { epoch, start_offset } in &self.starts {
            text.push_str(&format!("{epoch} {start_offset}\n"));
        }
        text
    }

    /// Reads the file's contents; none when they are not whole.
    pub fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines.filter(|line| !line.is_empty()) {
            let (epoch, start_offset) = line.split_once(' ')?;
            if !epochs.assign(epoch.parse().ok()?, start_offset.parse().ok()?) {
                return None;
            }
        }
        (epochs.starts.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_end_where_the_next_begins() {
        let mut epochs = LeaderEpochs::default();
        assert!(epochs.assign(0, 0));
        assert!(!epochs.assign(0, 5));
        assert!(epochs.assign(3, 10));
        let check = |epoch, expect| assert_eq!(epochs.end_of(epoch, 20), expect, "epoch {epoch}");
        check(-1, None);
        check(0, Some((0, 10)));
        check(2, Some((0, 10)));
        check(3, Some((3, 20)));
        check(9, None);
        assert_eq!(LeaderEpochs::decode(&epochs.encode()), Some(epochs.clone()));
        assert_eq!(LeaderEpochs::decode("0\n2\n0 0\n"), None);
        let mut later = LeaderEpochs::default();
        later.assign(5, 7);
        assert_eq!(later.end_of(2, 20), Some((2, 7)));
        epochs.truncate(10);
        assert_eq!(epochs.encode(), "0\n1\n0 0\n");
    }
}
