//! Files that only the user of jit may read: the store and everything beside it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The mode of every file that jit creates.
const OWN: u32 = 0o600;
/// The bits that a file with a secret may not have: its group may read it, and that is all.
const TOO_LOOSE_FOR_A_SECRET: u32 = 0o037;

/// The end of the name of a file that takes the place of another one.
const NEW: &str = ".jit-new";

/// Returns the options with which jit creates a file.
pub fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(OWN);
    options
}

/// Creates an empty file if it does not exist. An existing file is not opened, because closing any
/// handle of a SQLite file ends SQLite's locks on it.
pub fn create(path: &Path) -> io::Result<()> {
    match options().write(true).create_new(true).open(path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes the text into a new file, which then takes the place of the old one and has its mode and
/// its owner. Until then the old file stays, so that a full disk loses nothing.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, NEW);
    let written = write_like(path, &new, text).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() && new.is_file() {
        std::fs::remove_file(&new)?;
    }
    written
}

fn write_like(path: &Path, new: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(new) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        Ok(()) | Err(_) => {}
    }
    let mut file = options().write(true).create_new(true).open(new)?;
    match std::fs::metadata(path) {
        Ok(old) => {
            let ours = file.metadata()?;
            if (ours.uid(), ours.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())?;
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The path with this end of its name.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Fails if this process cannot create a file in the folder. It leaves no file there.
pub fn try_to_create_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".jit-check-{}", std::process::id()));
    options().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)
}

/// Why jit cannot create or write this file; none if it can.
pub fn why_unusable(path: &Path) -> Option<String> {
    if path.is_dir() {
        let path = path.display();
        return Some(format!("{path} is a folder: name a file in it"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let shown = folder.display();
    if !folder.is_dir() {
        return Some(format!(
            "the folder {shown} does not exist: make it, or name another file"
        ));
    }
    // jit also writes files beside this one.
    let why = try_to_create_in(folder).err()?;
    Some(format!(
        "jit cannot create files in the folder {shown}: {why}"
    ))
}

/// Takes the rights of other users from the files, and writes one line about all of them.
pub fn tighten(paths: &[PathBuf]) {
    let (mut tightened, mut kept) = (Vec::new(), Vec::new());
    for path in paths {
        let Some(mode) = mode_of(path).filter(|mode| mode & !OWN != 0) else {
            continue;
        };
        let named = format!("{} ({mode:04o})", path.display());
        match std::fs::set_permissions(path, Permissions::from_mode(mode & OWN)) {
            Ok(()) => tightened.push(named),
            Err(_) => kept.push(named),
        }
    }
    if !tightened.is_empty() {
        let files = tightened.join(", ");
        tracing::warn!("other users could read {files}: jit set the mode 0600");
    }
    if !kept.is_empty() {
        let files = kept.join(", ");
        tracing::warn!("other users can read {files}, and jit may not change the mode: chmod 600");
    }
}

/// Returns the mode of a file with a secret if it is looser than 0640.
pub fn too_loose_for_a_secret(path: &Path) -> Option<u32> {
    mode_of(path).filter(|mode| mode & TOO_LOOSE_FOR_A_SECRET != 0)
}

/// The mode of a regular file; none if there is none.
fn mode_of(path: &Path) -> Option<u32> {
    let found = std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    Some(found.permissions().mode() & 0o777)
}

/// Returns the files that SQLite keeps for a database.
pub fn of_sqlite(path: &Path) -> Vec<PathBuf> {
    let others = ["-wal", "-shm"].map(|end| beside(path, end));
    [path.to_owned()].into_iter().chain(others).collect()
}
