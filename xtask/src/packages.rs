//! The system packages that building and testing need, on Debian and what derives from it.
//!
//! Looks for the programs, not for the packages: a Node.js of another origin serves as well. Installs what
//! is missing where it runs as root, else names the one command that does.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program that must run with status 0, and the Debian package that brings it.
struct Needed {
    command: &'static [&'static str],
    package: &'static str,
    why: &'static str,
}

const NEEDED: &[Needed] = &[
    Needed {
        command: &["cc", "--version"],
        package: "build-essential",
        why: "librdkafka, OpenSSL, SQLite and zstd are C",
    },
    Needed {
        command: &["c++", "--version"],
        package: "build-essential",
        why: "librdkafka's configure asks for it",
    },
    Needed {
        command: &["make", "--version"],
        package: "build-essential",
        why: "librdkafka is built by make",
    },
    Needed {
        command: &["perl", "-MFindBin", "-MIPC::Cmd", "-e", "1"],
        package: "perl",
        why: "OpenSSL's configure is written in it",
    },
    Needed { command: &["node", "--version"], package: "nodejs", why: "the KafkaJS programs" },
    Needed { command: &["npm", "--version"], package: "npm", why: "the KafkaJS programs" },
    Needed {
        command: &["python3", "-c", "import venv, ensurepip"],
        package: "python3-venv",
        why: "the Python programs",
    },
    Needed {
        command: &["python3", "-c", "import yaml"],
        package: "python3-yaml",
        why: "the tests read the files of deploy/",
    },
    Needed {
        command: &["prometheus", "--version"],
        package: "prometheus",
        why: "the alert rules and the dashboard are asked of one",
    },
    Needed {
        command: &["systemd-analyze", "--version"],
        package: "systemd",
        why: "the unit is verified by it",
    },
    Needed {
        command: &["go", "version"],
        package: "golang",
        why: "the programs with franz-go and sarama, and the S3 server",
    },
    Needed { command: &["javac", "-version"], package: "default-jdk-headless", why: "the Java programs" },
    Needed {
        command: &["sh", "-c", "command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"],
        package: "postgresql",
        why: "the PostgreSQL store, and offsets in PostgreSQL",
    },
    Needed { command: &["mvn", "--version"], package: "maven", why: "the Java programs" },
];

/// Makes sure that every program of [`NEEDED`] runs.
pub fn install_missing() -> Result<()> {
    let missing: Vec<&Needed> = NEEDED.iter().filter(|needed| !runs(needed.command)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for needed in &missing {
        println!("`{}` is missing ({}): needs the package {}", needed.command[0], needed.why, needed.package);
    }
    let mut packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    packages.dedup();
    install(&packages)?;
    match missing.iter().find(|needed| !runs(needed.command)) {
        Some(needed) => {
            bail!("`{}` still does not run with {} installed", needed.command.join(" "), needed.package)
        }
        None => Ok(()),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let by_hand =
        format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root() || !runs(&["apt-get", "--version"]) {
        bail!("run this once as root, then try again: {by_hand}");
    }
    println!("{by_hand}");
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages);
    for arguments in [vec!["update"], install] {
        let mut command = Command::new("apt-get");
        command.args(&arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        let status = command.status().context("run apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed: {status}", arguments.join(" "));
        }
    }
    Ok(())
}

fn runs(command: &[&str]) -> bool {
    let mut process = Command::new(command[0]);
    process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process.status().is_ok_and(|status| status.success())
}

/// Whether this process may install packages: `/proc/self` belongs to the effective user.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
