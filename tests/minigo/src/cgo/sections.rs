//! Sections of the C compiler's object files.

use object::{Object, ObjectSection};

/// The debugging information of an object file.
pub(super) struct Sections(pub(super) gimli::DwarfSections<Vec<u8>>);

impl Sections {
    /// Of a relocatable object file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Sections, object::Error> {
        let file = object::File::parse(bytes)?;
        let load = |id: gimli::SectionId| -> Result<Vec<u8>, object::Error> {
            let Some(section) = file.section_by_name(id.name()) else { return Ok(vec![]) };
            let mut data = section.uncompressed_data()?.into_owned();
            // Offsets between sections are relocations against them, of 4 or 8 bytes.
            for (at, r) in section.relocations() {
                let (at, bytes) = (at as usize, usize::from(r.size() / 8));
                let value = (r.addend() as u64).to_le_bytes();
                if let (Some(to), Some(from)) = (data.get_mut(at..at + bytes), value.get(..bytes)) {
                    to.copy_from_slice(from);
                }
            }
            Ok(data)
        };
        Ok(Sections(gimli::DwarfSections::load(load)?))
    }
}
