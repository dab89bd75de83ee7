//! Compiled code, kept on disk for the next run of the same module.
//!
//! What is read here becomes machine code. An entry therefore carries a strong hash of its
//! contents and its key, which is compared before it is used; and the directory is one that
//! nobody but the user can write to, or it is not used at all. Entries appear under their names
//! complete or not at all, so any number of processes can read and write at once.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The most that all entries may take together, in bytes. The least recently used go first.
const MAX_SIZE: u64 = 512 << 20;

/// How old an unfinished entry has to be before it is taken for one that nobody writes any more.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The directory of our own, and the version of the format, in the directory that is given.
const DIRECTORY: &str = "wizer-1";

/// What an unfinished entry's name begins with.
const UNFINISHED: &str = ".tmp";

/// What an entry is called: a hash of everything that its contents follow from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key([u8; blake3::KEY_LEN]);

impl Key {
    /// The key of what comes from these parts, in this order.
    pub fn new(parts: &[&[u8]]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            // With its length, so that no two lists of parts are the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(hasher.finalize().into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn file_name(&self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }

    /// The hash that an entry of this key with these contents begins with.
    fn seal(&self, contents: &[u8]) -> [u8; blake3::OUT_LEN] {
        blake3::keyed_hash(&self.0, contents).into()
    }
}

/// A directory of entries.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    max_size: u64,
}

impl Cache {
    /// The cache in a directory, which is created when something is stored.
    pub fn new(directory: &Path) -> Cache {
        Cache {
            directory: directory.join(DIRECTORY),
            max_size: MAX_SIZE,
        }
    }

    /// The cache in the user's own directory for such things, if there is one.
    pub fn of_user() -> Option<Cache> {
        dirs::cache_dir().map(|directory| Cache::new(&directory))
    }

    /// Whether there seems to be an entry.
    pub fn has(&self, key: &Key) -> bool {
        fs::symlink_metadata(self.directory.join(key.file_name())).is_ok()
    }

    /// The contents of an entry. One that is damaged counts as missing, and is removed.
    pub fn load(&self, key: &Key) -> Option<Vec<u8>> {
        if !is_private(&self.directory).unwrap_or(false) {
            return None;
        }
        let path = self.directory.join(key.file_name());
        let metadata = fs::symlink_metadata(&path).ok()?;
        // What is no entry may have no end, or no beginning.
        if metadata.is_file() && metadata.len() <= self.max_size {
            let mut file = open(&path).ok()?;
            let mut seal = [0; blake3::OUT_LEN];
            let mut contents = Vec::new();
            let read = file
                .read_exact(&mut seal)
                .and_then(|()| file.read_to_end(&mut contents));
            if read.is_ok() && seal == key.seal(&contents) {
                return Some(contents);
            }
        }
        // Whatever it is, the next one to store it makes it good.
        let _ = fs::remove_file(&path);
        None
    }

    /// Takes note that an entry was used, for the order in which entries are removed.
    pub fn touch(&self, key: &Key) {
        // Only reading may be allowed.
        let file = open(&self.directory.join(key.file_name()));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Stores an entry, and removes old ones beyond the bound.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; a run does without.
    pub fn store(&self, key: &Key, contents: &[u8]) -> io::Result<()> {
        let size = contents.len() as u64 + blake3::OUT_LEN as u64;
        if size > self.max_size {
            return Ok(());
        }
        create_private(&self.directory)?;
        if !is_private(&self.directory)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.prune(self.max_size - size);
        // Of this user only, and removed again if anything goes wrong.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.directory)?;
        file.write_all(&key.seal(contents))?;
        file.write_all(contents)?;
        file.persist(self.directory.join(key.file_name()))
            .map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes what was left unfinished, and the least recently used entries until all others
    /// take no more than `room`.
    fn prune(&self, room: u64) {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        let mut taken: u64 = 0;
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let abandoned = now.duration_since(used).is_ok_and(|age| age > ABANDONED);
                if !abandoned || fs::remove_file(path).is_err() {
                    taken = metadata.len().saturating_add(taken);
                }
                continue;
            }
            taken = metadata.len().saturating_add(taken);
            entries.push((used, metadata.len(), path));
        }
        entries.sort();
        for (_, size, path) in entries {
            if taken <= room {
                break;
            }
            if fs::remove_file(path).is_ok() {
                taken -= size;
            }
        }
    }
}

/// Opens a file so that it can be read, and its times changed.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(windows)]
    {
        // For the times; elsewhere, whoever owns a file can change them.
        const GENERIC_READ: u32 = 0x8000_0000;
        const FILE_WRITE_ATTRIBUTES: u32 = 0x100;
        let access = GENERIC_READ | FILE_WRITE_ATTRIBUTES;
        std::os::windows::fs::OpenOptionsExt::access_mode(&mut options, access);
    }
    options.open(path)
}

/// Creates a directory for this user only, and its parents as usual.
fn create_private(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether nobody but this user can write to the directory.
#[cfg(unix)]
fn is_private(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(directory)?;
    Ok(metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0)
}

/// Whether it is there: the directories of a user are their own by default.
#[cfg(not(unix))]
fn is_private(directory: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(directory)?.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        (directory, cache)
    }

    fn entries(cache: &Cache) -> Vec<PathBuf> {
        let entries = fs::read_dir(&cache.directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let (_directory, cache) = cache();
        let key = Key::new(&[b"a", b"b"]);
        assert_eq!(cache.load(&key), None);
        cache.store(&key, b"contents").unwrap();
        assert_eq!(cache.load(&key).unwrap(), b"contents");
        assert_eq!(cache.load(&Key::new(&[b"ab"])), None);
        cache.store(&key, b"others").unwrap();
        assert_eq!(cache.load(&key).unwrap(), b"others");
    }

    /// Every bit counts, and so does every byte that is missing.
    #[test]
    fn damaged_entries_are_missing_and_replaced() {
        let (_directory, cache) = cache();
        let key = Key::new(&[b"key"]);
        cache.store(&key, b"contents").unwrap();
        let path = entries(&cache).pop().unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.load(&key), None, "byte {at}");
            assert!(entries(&cache).is_empty());
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.load(&key), None, "{at} bytes");
            cache.store(&key, b"contents").unwrap();
            assert_eq!(cache.load(&key).unwrap(), b"contents");
        }
    }

    #[test]
    fn an_entry_under_another_name_is_none() {
        let (_directory, cache) = cache();
        let (key, other) = (Key::new(&[b"key"]), Key::new(&[b"other"]));
        cache.store(&key, b"contents").unwrap();
        let path = cache.directory.join(key.file_name());
        fs::rename(path, cache.directory.join(other.file_name())).unwrap();
        assert_eq!(cache.load(&other), None);
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let (_directory, mut cache) = cache();
        cache.max_size = 3 * 100;
        let contents = [7; 100 - blake3::OUT_LEN];
        let keys: Vec<_> = (0..5u8).map(|n| Key::new(&[&[n]])).collect();
        let mut time = SystemTime::now() - Duration::from_secs(1000);
        let mut used = |key: &Key| {
            time += Duration::from_secs(10);
            let path = cache.directory.join(key.file_name());
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        for key in &keys[..3] {
            cache.store(key, &contents).unwrap();
            used(key);
        }
        used(&keys[0]);
        cache.store(&keys[3], &contents).unwrap();
        assert_eq!(cache.load(&keys[1]), None);
        for key in [0, 2, 3] {
            assert!(cache.load(&keys[key]).is_some(), "{key}");
        }
        cache.store(&keys[4], &[0; 1000]).unwrap();
        assert_eq!(cache.load(&keys[4]), None, "larger than the cache");
    }

    #[test]
    fn what_was_left_unfinished_is_removed_in_time() {
        let (_directory, cache) = cache();
        cache.store(&Key::new(&[b"a"]), b"a").unwrap();
        let (old, new) = (
            cache.directory.join(".tmpold"),
            cache.directory.join(".tmpnew"),
        );
        for path in [&old, &new] {
            fs::write(path, "half").unwrap();
        }
        let file = File::options().write(true).open(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * ABANDONED)
            .unwrap();
        cache.store(&Key::new(&[b"b"]), b"b").unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, cache) = cache();
        let key = Key::new(&[b"key"]);
        cache.store(&key, b"contents").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.directory), 0o700);
        assert_eq!(mode(&entries(&cache)[0]), 0o600);
        let allow = |mode| {
            fs::set_permissions(&cache.directory, fs::Permissions::from_mode(mode)).unwrap();
        };
        allow(0o777);
        assert_eq!(cache.load(&key), None);
        assert!(cache.store(&key, b"contents").is_err());
        allow(0o755);
        assert!(cache.load(&key).is_some());
        // Nor is a link, which somebody else may have put there.
        let other = directory.path().join("other");
        fs::rename(&cache.directory, &other).unwrap();
        std::os::unix::fs::symlink(&other, &cache.directory).unwrap();
        assert_eq!(cache.load(&key), None);
    }
}
