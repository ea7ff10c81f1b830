//! What a reader must know about the machine to read the figures, and the one limit of it that must be raised.

use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::read_to_string;
use std::path::Path;

/// Facts by name, in the order in which they are shown.
pub type Facts = Vec<(String, String)>;

/// Lets this process and the servers it starts open as many files as the system allows: 1,000 partitions and 1,000
/// connections need more than the usual 1,024.
pub fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Runnable threads per core above which somebody else is at work.
const QUIET_LOAD_PER_CORE: f64 = 0.5;

/// How busy the machine is with others, to be asked before anything is measured. Says so at once if it is too busy.
pub fn load_before() -> Result<String> {
    let text = read_to_string("/proc/loadavg")?;
    let load: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    let cores = std::thread::available_parallelism()?.get();
    if load <= QUIET_LOAD_PER_CORE * cores as f64 {
        return Ok(format!("{load}"));
    }
    eprintln!(
        "the machine is busy with something else (load {load} on {cores} cores): figures will be noise"
    );
    Ok(format!("{load} on {cores} cores: TOO BUSY, do not trust these figures"))
}

/// The machine, how busy it was, the load generator and the peers.
pub fn facts(work_dir: &Path, load_before: String, peers: &[(&'static str, String)]) -> Result<Facts> {
    let cores = std::thread::available_parallelism()?.get();
    let memory_kib: f64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let mut facts = vec![
        ("processor".to_owned(), format!("{}, {cores} cores", field("/proc/cpuinfo", "model name"))),
        ("memory".to_owned(), format!("{:.0} GB", memory_kib * 1024.0 / 1e9)),
        ("kernel".to_owned(), read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("file system".to_owned(), file_system(work_dir)?),
        ("load before the run".to_owned(), load_before),
        ("load generator".to_owned(), format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)),
    ];
    facts.extend(peers.iter().map(|(name, description)| ((*name).to_owned(), description.clone())));
    Ok(facts)
}

/// The value of `key` in a file of `key: value` lines; empty if there is none.
fn field(path: &str, key: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Kind of the file system that holds `path`: the mount with the longest matching prefix.
fn file_system(path: &Path) -> Result<String> {
    let mounts = read_to_string("/proc/self/mounts")?;
    let best = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(mounted, _, _)| path.starts_with(mounted))
        .max_by_key(|(mounted, _, _)| mounted.len());
    Ok(best.map_or("unknown".to_owned(), |(_, kind, options)| format!("{kind} ({options})")))
}
