//! A file system of its own, small enough to be filled. Needs root; taken away when it is dropped.
//!
//! Runs on: the test's thread.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

pub struct Disk {
    pub folder: PathBuf,
}

impl Disk {
    /// The error says what this machine does not allow.
    pub fn new() -> Result<Disk, String> {
        let folder = std::env::temp_dir().join(format!("ostler-disk-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        // Half an hour of logs and snapshots fits.
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1200m", "tmpfs"]).arg(&folder).output();
        match mount {
            Ok(output) if output.status.success() => Ok(Disk { folder }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Until not a byte is left.
    pub fn fill(&self) {
        let Ok(mut file) = fs::File::create(self.filler()) else { return };
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'f'; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        let _ = fs::remove_dir(&self.folder);
    }
}
