//! Where a platform under test keeps its data, on which cluster, and what its topics are called there.

use std::path::Path;

use tempfile::TempDir;
use tidings_tests::Launch;

use crate::cluster_under_test;

/// A directory and a topic that are one test's alone.
pub struct Site {
    directory: TempDir,
    cluster: Option<String>,
    topic: String,
}

impl Site {
    /// A new one.
    #[track_caller]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("make a directory for data");
        let cluster = cluster_under_test();
        let topic = match &cluster {
            None => "activities".to_owned(),
            // The cluster is everybody's.
            Some(_) => format!("activities-{}", name_of(&directory)),
        };
        Self { directory, cluster, topic }
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The platform, to be started; each start is of the same one.
    pub fn platform(&self) -> Launch {
        match &self.cluster {
            None => Launch::up(self.path()),
            Some(cluster) => {
                Launch::up_on(cluster, self.path()).environment("TIDINGS_ACTIVITY_TOPIC", &self.topic)
            }
        }
    }

    /// The topic of activities.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The group that stores them.
    pub fn writer(&self) -> String {
        if self.cluster.is_none() { "activity-writer".to_owned() } else { format!("{}-writer", self.topic) }
    }

    /// The topic of dead letters.
    pub fn letters(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    /// The topic of what is to be tried again.
    pub fn retries(&self) -> String {
        format!("{}.{}.retry", self.topic, self.writer())
    }
}

/// What no other directory, on this or another day, is called: the process and a name of its own.
fn name_of(directory: &TempDir) -> String {
    let name = directory.path().file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{}-{name}", std::process::id())
}
