//! What a simulated file system holds: what programs see, and what is durable.
//!
//! Owns the rules of loss. Invariants: a file's durable contents change by syncs and crashes only; a name
//! is durable after a sync of its directory or of everything. After a failed sync the bytes it should
//! have written stay visible but count as clean, as Linux does it: a later sync does not write them. The error
//! is reported once to every descriptor that was open then.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::random::Random;

/// What a sector keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// What happens to unsynced changes in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is lost: the process was killed, the system lives on.
    Nothing,
    /// Everything unsynced is lost.
    Unsynced,
    /// Any part of what is unsynced is lost, sector by sector, in any order.
    Random(u64),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Failed syncs; each descriptor is told once.
    pub errors_count: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Insert(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub names: Names,
    durable_names: Names,
    pending_names: Vec<NameChange>,
    pub inodes: Vec<Inode>,
    /// Failed syncs of anything.
    pub errors_count: u64,
}

impl Inode {
    pub fn write(&mut self, position: usize, bytes: &[u8]) {
        let change = Change::Write { position, bytes: bytes.to_vec() };
        change.apply(&mut self.data);
        self.pending.push(change);
    }

    pub fn set_len(&mut self, len: usize) {
        let change = Change::SetLen(len);
        change.apply(&mut self.data);
        self.pending.push(change);
    }

    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub fn fail_sync(&mut self) {
        self.errors_count += 1;
        self.pending.clear();
    }

    /// The contents after a crash. The system writes pages back when it likes, each as it is at that
    /// moment: so every sector is as it was after some of the changes, the length as well, and all of
    /// them independently.
    fn after(&self, random: Option<&mut Random>) -> Vec<u8> {
        let (Some(random), false) = (random, self.pending.is_empty()) else { return self.durable.clone() };
        let mut versions = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = versions.last().expect("at least the durable one").clone();
            change.apply(&mut next);
            versions.push(next);
        }
        let len = versions[random.below(versions.len())].len();
        let mut data = vec![0; len];
        for (index, sector) in data.chunks_mut(SECTOR_BYTES).enumerate() {
            let version = &versions[random.below(versions.len())];
            let from = version.len().min(index * SECTOR_BYTES);
            let count = sector.len().min(version.len() - from);
            sector[..count].copy_from_slice(&version[from..from + count]);
        }
        data
    }
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => data.resize(*len, 0),
            Self::Write { position, bytes } => {
                let end = position + bytes.len();
                data.resize(data.len().max(end), 0);
                data[*position..end].copy_from_slice(bytes);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Insert(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let node = names.remove(&path).expect("just listed");
                    let below = path.strip_prefix(from).expect("starts with it");
                    let path = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    names.insert(path, node);
                }
            }
        }
    }

    /// Whether a sync of the directory makes the change durable.
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Insert(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

impl State {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    pub fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn create(&mut self, path: &Path) -> io::Result<usize> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if self.names.get(parent) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.change(NameChange::Insert(path.to_owned(), Node::File(inode)));
        Ok(inode)
    }

    pub fn create_dir(&mut self, path: &Path) {
        if !self.names.contains_key(path) {
            self.change(NameChange::Insert(path.to_owned(), Node::Dir));
        }
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.change(NameChange::Insert(to.to_owned(), node));
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        if !self.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) {
        let pending = std::mem::take(&mut self.pending_names);
        for change in pending {
            if change.is_in(dir) {
                change.apply(&mut self.durable_names);
            } else {
                self.pending_names.push(change);
            }
        }
    }

    pub fn sync_all(&mut self) {
        for change in self.pending_names.drain(..) {
            change.apply(&mut self.durable_names);
        }
        self.inodes.iter_mut().for_each(Inode::sync);
    }

    /// The file system as the next start finds it.
    pub fn after_crash(&self, loss: Loss) -> Self {
        let mut random = match loss {
            Loss::Nothing => return self.clone(),
            Loss::Unsynced => None,
            Loss::Random(seed) => Some(Random::new(seed)),
        };
        let mut names = self.durable_names.clone();
        if let Some(random) = &mut random {
            // A journal keeps the order of names: a prefix of the changes is there.
            let kept = random.below(self.pending_names.len() + 1);
            self.pending_names[..kept].iter().for_each(|change| change.apply(&mut names));
        }
        // Without its directory a name is nothing; only the root needs none.
        let reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|above| above.parent().is_none() || names.get(above) == Some(&Node::Dir))
        };
        let names: Names = names
            .iter()
            .filter(|(path, _)| reachable(path))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        let contents = |inode: &Inode| {
            let data = inode.after(random.as_mut());
            Inode { durable: data.clone(), data, pending: Vec::new(), errors_count: 0 }
        };
        let inodes = self.inodes.iter().map(contents).collect();
        Self { durable_names: names.clone(), names, pending_names: Vec::new(), inodes, errors_count: 0 }
    }
}
