//! Getting definitions out of Maven artifacts, and formatting what is made of them.
//!
//! Owns the calls of `mvn` and `rustfmt`. Maven chooses where artifacts come from; they are unpacked once under
//! `target/codegen` and found there the next time.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::definition::Definition;
use super::merge;

/// One artifact of Apache Kafka.
#[derive(Debug, Clone, Copy)]
pub struct Artifact {
    /// Its name within the group `org.apache.kafka`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Messages to generate, and where they are defined.
#[derive(Debug)]
pub struct Source {
    /// The newest definitions.
    pub artifact: Artifact,
    /// An older release whose versions are kept as well.
    pub before: Option<Artifact>,
    /// Where in the artifact the definitions lie.
    pub directory: &'static str,
    /// Requests with their responses, by the API's name.
    pub apis: &'static [&'static str],
    /// Other messages by their full name.
    pub others: &'static [&'static str],
}

impl Artifact {
    /// Unpacks the definitions, unless they are there already.
    fn unpack(self, root: &Path) -> Result<PathBuf> {
        let directory = root.join("target/codegen").join(format!("{}-{}", self.name, self.version));
        if directory.join("common").is_dir() {
            return Ok(directory);
        }
        std::fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let status = Command::new("mvn")
            // Without a project Maven leaves its markers in a folder of the directory it runs in.
            .current_dir(&directory)
            .args([
                "-q",
                "-Dstyle.color=never",
                "dependency:unpack",
                "-Dmdep.unpack.includes=common/**/*.json",
            ])
            .arg(format!("-Dartifact=org.apache.kafka:{}:{}:jar", self.name, self.version))
            .arg(format!("-DoutputDirectory={}", directory.display()))
            .status()
            .context("run mvn, which fetches Kafka's definitions")?;
        ensure!(status.success(), "mvn could not unpack {} {}", self.name, self.version);
        Ok(directory)
    }

    fn has(self, root: &Path, directory: &str, name: &str) -> bool {
        self.unpack(root)
            .is_ok_and(|unpacked| unpacked.join(directory).join(format!("{name}.json")).is_file())
    }

    fn read(self, root: &Path, directory: &str, name: &str) -> Result<Definition> {
        let path = self.unpack(root)?.join(directory).join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let origin = format!("{} {}", self.name, self.version);
        Definition::parse(&text, origin).with_context(|| format!("read {}", path.display()))
    }
}

impl Source {
    /// The definitions of every message of this source, widened by the older release.
    pub fn definitions(&self, root: &Path) -> Result<Vec<Definition>> {
        let apis = self.apis.iter().flat_map(|api| [format!("{api}Request"), format!("{api}Response")]);
        let others = self.others.iter().map(|name| (*name).to_owned());
        let mut definitions = Vec::new();
        for name in apis.chain(others) {
            let mut definition = self.artifact.read(root, self.directory, &name)?;
            if let Some(before) = self.before.filter(|before| before.has(root, self.directory, &name)) {
                let older = before.read(root, self.directory, &name)?;
                merge::widen(&mut definition, &older).with_context(|| format!("widen {name}"))?;
            }
            definitions.push(definition);
        }
        Ok(definitions)
    }
}

/// An API that Kafka defines, generated or not.
#[derive(Debug)]
pub struct ApiKey {
    /// Its key.
    pub code: i16,
    /// Its name without `Request`.
    pub name: String,
    /// The first flexible version.
    pub flexible_from: Option<i16>,
}

/// Every API of the newest release, by key. APIs that it names but no longer speaks have no versions; theirs come
/// from the older release.
pub fn api_keys(root: &Path, source: &Source) -> Result<Vec<ApiKey>> {
    let directory = source.artifact.unpack(root)?.join(source.directory);
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let Some(api) = name.strip_suffix("Request") else { continue };
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let head = Definition::parse_head(&text).with_context(|| format!("read {}", path.display()))?;
        let head = match (head.versions.is_empty(), source.before) {
            (true, Some(before)) => {
                let path = before.unpack(root)?.join(source.directory).join(format!("{name}.json"));
                Definition::parse_head(&std::fs::read_to_string(&path)?)?
            }
            _ => head,
        };
        let Some(code) = head.api_key else { bail!("{name} has no API key") };
        let flexible_from = (!head.flexible.is_empty()).then_some(head.flexible.first);
        keys.push(ApiKey { code, name: api.to_owned(), flexible_from });
    }
    keys.sort_by_key(|key| key.code);
    Ok(keys)
}

/// Formats Rust as the repository does.
pub fn rustfmt(root: &Path, content: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run rustfmt")?;
    child.stdin.take().context("write to rustfmt")?.write_all(content.as_bytes())?;
    let output = child.wait_with_output().context("read from rustfmt")?;
    ensure!(output.status.success(), "rustfmt refused the generated code");
    Ok(String::from_utf8(output.stdout)?)
}
