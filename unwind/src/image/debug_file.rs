//! Separate debug files: found by build id, or by the name and checksum in `.gnu_debuglink`.

use std::path::{Path, PathBuf};

use object::{Object, ReadRef};

use super::elf_file;

/// The debug file of `file`, which lies at `path`. It is below one of `directories`, or beside the
/// file.
pub(crate) fn find<'a, R: ReadRef<'a>>(
    file: &object::File<'a, R>,
    path: &Path,
    directories: &[PathBuf],
) -> Option<PathBuf> {
    by_build_id(file, directories).or_else(|| by_link(file, path, directories))
}

fn by_build_id<'a, R: ReadRef<'a>>(
    file: &object::File<'a, R>,
    directories: &[PathBuf],
) -> Option<PathBuf> {
    let id = file.build_id().ok()??;
    let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_first()?;
    let relative = PathBuf::from(".build-id").join(first).join(format!("{}.debug", rest.concat()));
    directories.iter().map(|directory| directory.join(&relative)).find(|candidate| {
        let Ok(bytes) = elf_file::open(candidate) else { return false };
        object::File::parse(&bytes).is_ok_and(|debug| debug.build_id() == Ok(Some(id)))
    })
}

fn by_link<'a, R: ReadRef<'a>>(
    file: &object::File<'a, R>,
    path: &Path,
    directories: &[PathBuf],
) -> Option<PathBuf> {
    let (name, checksum) = file.gnu_debuglink().ok()??;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let directory = std::path::absolute(path).ok()?.parent()?.to_path_buf();
    let beside = [directory.join(name), directory.join(".debug").join(name)];
    let below = directories
        .iter()
        .map(|root| root.join(directory.strip_prefix("/").unwrap_or(&directory)).join(name));
    beside.into_iter().chain(below).find(|candidate| {
        // The link may name the file itself.
        candidate != path && std::fs::read(candidate).is_ok_and(|bytes| crc32(&bytes) == checksum)
    })
}

/// The checksum of `.gnu_debuglink`: CRC-32 with the reflected polynomial 0xedb88320.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 != 0 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |value: u32, byte| value >> 8 ^ TABLE[usize::from(value as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
