//! The packages of other languages that the client programs (`tests/clients`) import.
//!
//! Everything lands in `target/clients/<client>`, pinned by what is committed beside the programs, and is
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
    for name in ["kafkajs", "platformatic"] {
        install_npm(&programs.join(name), &installed.join(name))?;
    }
    for name in ["python", "kafka-python", "aiokafka"] {
        install_python(&programs.join(name), &installed.join(name))?;
    }
    for name in ["franz-go", "sarama"] {
        install_go(&programs.join(name), &installed.join(name))?;
    }
    install_go_tool(&programs, "versitygw", "github.com/versity/versitygw/cmd/versitygw", &installed)?;
    copy_jars(&programs.join("java/pom.xml"), &installed.join("java/jars"))?;
    for name in ["java-4.4", "java-3.9"] {
        install_java(&programs, name, &installed.join(name))?;
    }
    install_java_application(&programs.join("streams"), &installed.join("streams"))?;
    install_express(&repository.join("packages/express"), &installed.join("express"))
}

/// The Express middleware, compiled, with Express beside it: what a user's own application has.
fn install_express(package: &Path, folder: &Path) -> Result<()> {
    const FOLDERS: [(&str, &str); 4] = [("src", "ts"), ("test", "mjs"), ("test", "json"), ("example", "mjs")];
    let manifests = ["package.json", "package-lock.json", "tsconfig.json"];
    let mut sources: Vec<PathBuf> = manifests.iter().map(|name| package.join(name)).collect();
    for (name, extension) in FOLDERS {
        sources.extend(files_with_extension(&package.join(name), extension)?);
    }
    unless_stamped(folder, &sources, || {
        for source in &sources {
            let copy = folder.join(source.strip_prefix(package).expect("sources lie in the package"));
            fs::create_dir_all(copy.parent().expect("a copy lies in the folder"))?;
            fs::copy(source, copy)?;
        }
        let npm = |arguments: &[&str]| run(Command::new("npm").args(arguments).current_dir(folder));
        npm(&["ci", "--no-audit", "--no-fund", "--loglevel=error"])?;
        npm(&["run", "--silent", "build"])
    })
}

/// `node_modules`, from the committed lock file.
fn install_npm(programs: &Path, folder: &Path) -> Result<()> {
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

/// One program with all checks of a module, built as its `go.sum` says and never as something newer.
fn install_go(programs: &Path, folder: &Path) -> Result<()> {
    let mut sources = vec![programs.join("go.mod"), programs.join("go.sum")];
    sources.extend(files_with_extension(programs, "go")?);
    unless_stamped(folder, &sources, || {
        let mut build = Command::new("go");
        build.args(["build", "-mod=readonly", "-o"]).arg(folder.join("checks")).arg(".");
        run(build.current_dir(programs))
    })
}

/// A program of somebody else's, as a `go.mod` of ours pins it; without its debugging symbols.
fn install_go_tool(programs: &Path, name: &str, package: &str, installed: &Path) -> Result<()> {
    let (module, folder) = (programs.join(name), installed.join(name));
    unless_stamped(&folder, &["go.mod", "go.sum"].map(|file| module.join(file)), || {
        let mut build = Command::new("go");
        build.args(["build", "-mod=readonly", "-ldflags=-s -w", "-o"]).arg(folder.join(name)).arg(package);
        run(build.current_dir(&module))
    })
}

/// The jars of one version, and the programs of `java` compiled against it. What the version's API has otherwise lies in
/// its own folder and is taken instead of the file of the same name.
fn install_java(programs: &Path, version: &str, folder: &Path) -> Result<()> {
    let jars = folder.join("jars");
    copy_jars(&programs.join(version).join("pom.xml"), &jars)?;
    let mut sources = files_with_extension(&programs.join("java"), "java")?;
    for own in files_with_extension(&programs.join(version), "java")? {
        sources.retain(|common| common.file_name() != own.file_name());
        sources.push(own);
    }
    compile_java(&sources, &jars, &folder.join("classes"))
}

/// A Java program with jars of its own.
fn install_java_application(program: &Path, folder: &Path) -> Result<()> {
    let jars = folder.join("jars");
    copy_jars(&program.join("pom.xml"), &jars)?;
    compile_java(&files_with_extension(program, "java")?, &jars, &folder.join("classes"))
}

fn compile_java(sources: &[PathBuf], jars: &Path, classes: &Path) -> Result<()> {
    unless_stamped(classes, sources, || {
        let mut compile = Command::new("javac");
        compile.arg("-cp").arg(jars.join("*")).arg("-d").arg(classes).args(sources);
        run(&mut compile)
    })
}

/// The jars that a pom names, with what they need.
fn copy_jars(pom: &Path, jars: &Path) -> Result<()> {
    unless_stamped(jars, &[pom.to_owned()], || {
        let output = format!("-DoutputDirectory={}", jars.display());
        run(Command::new("mvn")
            .args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"])
            .arg(pom)
            .args([COPY_JARS, &output]))
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
