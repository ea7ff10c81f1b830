//! The packages of other languages that the client programs (`tests/clients`) import.
//!
//! Everything lands in `target/clients/<language>`, pinned by what is committed beside the programs, and is
//! installed anew only when that changed: the manifest a folder was made from is kept in it as a stamp,
//! written last, so that an installation that was cut short is done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const COPY_JARS: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Installs what is missing or out of date, below `target`.
pub fn install(repository: &Path, target: &Path) -> Result<()> {
    let programs = repository.join("tests/clients");
    let installed = target.join("clients");
    install_kafkajs(&programs.join("kafkajs"), &installed.join("kafkajs"))?;
    install_python(&programs.join("python"), &installed.join("python"))?;
    install_java(&programs.join("java"), &installed.join("java"))
}

/// `node_modules`, from the committed lock file.
fn install_kafkajs(programs: &Path, folder: &Path) -> Result<()> {
    let manifests = ["package.json", "package-lock.json"].map(|name| programs.join(name));
    unless_stamped(folder, &manifests, || {
        for manifest in &manifests {
            fs::copy(manifest, folder.join(manifest.file_name().expect("a manifest is a file")))?;
        }
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(folder))
    })
}

/// A virtual environment with the pinned requirements.
fn install_python(programs: &Path, folder: &Path) -> Result<()> {
    let requirements = programs.join("requirements.txt");
    unless_stamped(folder, std::slice::from_ref(&requirements), || {
        let environment = folder.join("venv");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        let pip = environment.join("bin/pip");
        run(Command::new(pip)
            .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements))
    })
}

/// The jars that the pom names in `jars`, and the compiled programs in `classes`.
fn install_java(programs: &Path, folder: &Path) -> Result<()> {
    let pom = programs.join("pom.xml");
    let jars = folder.join("jars");
    unless_stamped(&jars, std::slice::from_ref(&pom), || {
        let output = format!("-DoutputDirectory={}", jars.display());
        run(Command::new("mvn")
            .args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"])
            .arg(&pom)
            .args([COPY_JARS, &output]))
    })?;
    let sources = files_with_extension(programs, "java")?;
    let classes = folder.join("classes");
    unless_stamped(&classes, &sources, || {
        let mut compile = Command::new("javac");
        compile.arg("-cp").arg(jars.join("*")).arg("-d").arg(&classes).args(&sources);
        run(&mut compile)
    })
}

/// Runs `install` in an empty `folder`, unless it was made from the same manifests before.
fn unless_stamped(folder: &Path, manifests: &[PathBuf], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(".installed-from");
    let mut wanted = String::new();
    for manifest in manifests {
        wanted += &fs::read_to_string(manifest).with_context(|| format!("read {}", manifest.display()))?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!("installing into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    install().with_context(|| format!("install into {}", folder.display()))?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.with_context(|| format!("list {}", folder.display()))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
