//! Running the executable in an empty directory, with nothing set that the test does not set.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, command: &[&str], arguments: &[&str]) -> Output {
        self.command().args(command).args(arguments).output().unwrap()
    }
}

#[track_caller]
pub fn check_refused(ended: &Output, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&ended.stderr), stderr);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.is_empty());
}
