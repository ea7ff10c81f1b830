//! Whether a sync that said yes has done so on a file system that was alive.

use std::fs::File;
use std::io;

use rustix::io::Errno;

/// Fails if the file system of `file` has given up: between the moment in which ext4 gives its journal up and the one in which it
/// says so a sync finds no transaction to wait for, and succeeds. To remove an attribute that is not there changes nothing, but
/// takes a part in a transaction; where the journal is alive now, it was during the sync before.
pub(crate) fn ensure_alive(file: &File) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, "user.tidings.alive") {
        Err(error @ (Errno::ROFS | Errno::IO | Errno::UCLEAN)) => Err(error.into()),
        // There is no such attribute, or none at all, or they are not for us.
        _ => Ok(()),
    }
}
