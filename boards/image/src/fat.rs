//! The FAT partition, in this process: no mount, no root.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use crate::ImageError;
use crate::window::Window;

/// Files in it, in the memory of this process: nothing that is read from a card is larger.
const MOST_BYTES: u64 = 64 << 20;

/// Makes an empty one. The same bytes each time.
pub(crate) fn format(partition: &mut (impl Read + Write + Seek)) -> io::Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(1024)
        .volume_id(u32::from_be_bytes(*b"HOLM"))
        .volume_label(*b"HOLM-BOOT  ");
    format_volume(partition, options)
}

/// Writes files, with the folders that they are in.
pub(crate) fn put<'a>(
    mut partition: impl Read + Write + Seek,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> io::Result<()> {
    partition.rewind()?;
    let system = FileSystem::new(partition, options())?;
    // Counts what is free, which others then find written down.
    system.stats()?;
    for (path, bytes) in files {
        let mut folder = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part)?;
        }
        let mut file = folder.create_file(name)?;
        file.truncate()?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    system.unmount()
}

/// Reads a file. `None` if it is not there.
pub(crate) fn get(mut partition: impl Read + Write + Seek, path: &str) -> io::Result<Option<Vec<u8>>> {
    partition.rewind()?;
    let system = FileSystem::new(partition, options())?;
    let mut bytes = Vec::new();
    match system.root_dir().open_file(path) {
        Ok(file) => file.take(MOST_BYTES).read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of the files in a folder, in order.
pub(crate) fn list(mut partition: impl Read + Write + Seek, folder: &str) -> io::Result<Vec<String>> {
    partition.rewind()?;
    let system = FileSystem::new(partition, options())?;
    let mut names = Vec::new();
    for entry in system.root_dir().open_dir(folder)?.iter() {
        let entry = entry?;
        if entry.is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

/// Bytes that are free.
pub(crate) fn free(mut partition: impl Read + Write + Seek) -> io::Result<u64> {
    partition.rewind()?;
    let system = FileSystem::new(partition, options())?;
    let stats = system.stats()?;
    Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
}

/// Cards do not learn when they were last read.
fn options() -> FsOptions {
    FsOptions::new().update_accessed_date(false)
}

/// The FAT partition of a card or an image.
pub(crate) fn of(card: &File, path: &Path) -> Result<Window<File>, ImageError> {
    use std::os::unix::fs::FileExt as _;
    let mut sector = [0; 512];
    card.read_exact_at(&mut sector, 0).map_err(ImageError::file("read", path))?;
    by(&sector, card, path)
}

/// The same where the card has no table yet, by the table that it will get.
pub(crate) fn by(sector: &[u8], card: &File, path: &Path) -> Result<Window<File>, ImageError> {
    let wrong = |problem: &str| ImageError::Card { path: path.to_owned(), problem: problem.to_owned() };
    let table = holm_init::table::Table::parse(sector).map_err(wrong)?;
    table.check().map_err(wrong)?;
    let [boot, ..] = table.entries;
    let card = card.try_clone().map_err(ImageError::file("open", path))?;
    Ok(Window::new(card, boot.start(), boot.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn files_are_there_as_they_were_put_and_the_bytes_are_the_same_each_time() {
        let make = || {
            let mut disk = Cursor::new(vec![0; 80 << 20]);
            format(&mut disk).unwrap();
            put(&mut disk, [("config.txt", &b"os_prefix=a/\n"[..]), ("a/vmlinuz", &[7; 5000][..])]).unwrap();
            put(&mut disk, [("config.txt", &b"b"[..]), ("a/second file.toml", b"")]).unwrap();
            disk
        };
        let mut disk = make();
        assert_eq!(get(&mut disk, "config.txt").unwrap().unwrap(), b"b");
        assert_eq!(get(&mut disk, "a/vmlinuz").unwrap().unwrap(), [7; 5000]);
        assert_eq!(get(&mut disk, "a/second file.toml").unwrap().unwrap(), b"");
        assert_eq!(get(&mut disk, "b/vmlinuz").unwrap(), None);
        assert_eq!(list(&mut disk, "a").unwrap(), ["second file.toml", "vmlinuz"]);
        assert!(make().into_inner() == make().into_inner());
    }
}
