//! A disk whose power can be cut: ext4 in an image file, mounted through a loop device.
//!
//! Owns the image and the mount. A cut is `EXT4_IOC_SHUTDOWN` without flushing the journal: from then on the file
//! system answers every write and sync with an error, and nothing that was not synced reaches the image, as if the
//! machine had lost its power. Mounting again replays the journal, as a boot does. Needs root: without it, or
//! without loop devices, [`Volume::create`] fails, and so does the test; it never passes by doing nothing.
//!
//! What it can't show: a disk that loses what it said was flushed. The image is always whole.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::run::until;

/// `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Nothing is flushed, the journal included.
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// How ext4 may keep data and metadata in step; each leaves other things behind after a cut.
pub const MOUNT_OPTIONS: &[&str] =
    &["data=ordered", "data=writeback", "data=ordered,nodelalloc", "data=writeback,nodelalloc,commit=1"];

/// A mounted image; dropping it unmounts and removes it.
#[derive(Debug)]
pub struct Volume {
    folder: TempDir,
    options: &'static str,
    mounted: bool,
}

impl Volume {
    /// Makes and mounts a file system of so many megabytes.
    pub fn create(megabytes: u64, options: &'static str) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "cutting the power of a disk needs root (it mounts a file system): run this test as root"
        );
        let folder = tempfile::Builder::new().prefix("tidings-volume-").tempdir_in(images())?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(megabytes << 20)?;
        let mut volume = Self { options, mounted: false, folder };
        run("mkfs.ext4", &["-q", "-F", "-J", "size=4", path_text(&image)])?;
        std::fs::create_dir(volume.mount_point())?;
        volume.mount()?;
        Ok(volume)
    }

    /// A directory of its own on the volume, for a broker.
    pub fn data_dir(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// How it is mounted.
    pub fn options(&self) -> &'static str {
        self.options
    }

    /// Cuts the power. Whoever has files open there gets errors from now on.
    pub fn cut_power(&self) -> Result<()> {
        cut_power_of(&self.mount_point())
    }

    /// Power is back: mounts again, which replays the journal. Nobody may use the volume.
    pub fn restore_power(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Makes the file system believe that it is damaged, and go read-only under those who have files open.
    pub fn become_read_only(&self) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mount_point = self.mount_point();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(path_text(&mount_point)));
        let device = line.and_then(|line| line.split(' ').next()).context("the volume is mounted")?;
        let name = device.rsplit('/').next().unwrap_or(device);
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        std::fs::write(&trigger, "tidings-crash").with_context(|| format!("write {trigger}"))
    }

    fn mount(&mut self) -> Result<()> {
        let options = format!("loop,errors=remount-ro,{}", self.options);
        let (image, mount_point) = (self.folder.path().join("image"), self.mount_point());
        run("mount", &["-t", "ext4", "-o", &options, path_text(&image), path_text(&mount_point)])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let mount_point = self.mount_point();
        // A killed process is gone a moment before its last file is closed.
        until("the volume is unmounted", || run("umount", &[path_text(&mount_point)]).ok());
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let mount_point = self.mount_point();
            if run("umount", &[path_text(&mount_point)]).is_err() {
                let _ = run("umount", &["-l", path_text(&mount_point)]);
            }
        }
    }
}

/// Cuts the power of the volume that is mounted here.
pub fn cut_power_of(mount_point: &Path) -> Result<()> {
    let root = File::open(mount_point).context("open the volume")?;
    let flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
    // SAFETY: the request reads one u32 from a pointer that is valid during the call.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
    ensure!(result == 0, "shut the volume down: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Where images lie: in memory where there is room, so that a round costs no real disk's time.
fn images() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDINGS_CRASH_IMAGES") {
        return PathBuf::from(path);
    }
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
