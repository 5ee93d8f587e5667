//! `.eh_frame` as program headers name it: by the address of its search table, `.eh_frame_hdr`.

use std::borrow::Cow;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian};

use super::cfi_source::CfiSource;
use super::error::ImageError;
use crate::arch::ADDRESS_SIZE;
use crate::cfi::SectionFormat;

/// The section whose search table lies at `at`. `rest` yields the bytes from an address on to the
/// end of its segment. `None` if there are none at the section's address. `address` names the image
/// in errors.
pub(crate) fn section<'d>(
    table: &[u8],
    at: u64,
    bias: u64,
    rest: impl FnOnce(u64) -> Option<Cow<'d, [u8]>>,
    address: usize,
) -> Result<Option<CfiSource>, ImageError> {
    let malformed = |source| ImageError::Header { address, source };
    let bases = BaseAddresses::default().set_eh_frame_hdr(at);
    let parsed =
        EhFrameHdr::new(table, LittleEndian).parse(&bases, ADDRESS_SIZE).map_err(malformed)?;
    let start = parsed.eh_frame_ptr().direct().map_err(malformed)?;
    let Some(rest) = rest(start) else { return Ok(None) };
    let bytes = rest[..len(&rest)].to_vec();
    let (bases, table) = (bases.set_eh_frame(start), Some(table.to_vec()));
    CfiSource::new(bytes, SectionFormat::EhFrame, bases, table, bias)
        .map(Some)
        .map_err(|source| ImageError::Cfi { address, source })
}

/// The length of an `.eh_frame` section that something else follows: up to its closing zero.
fn len(bytes: &[u8]) -> usize {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut at = 0;
    loop {
        let len = match word(at) {
            None | Some(0) => return at,
            Some(u32::MAX) => match (word(at + 4), word(at + 8)) {
                (Some(low), Some(high)) => {
                    (u64::from(high) << 32 | u64::from(low)).saturating_add(12)
                }
                _ => return bytes.len(),
            },
            Some(len) => u64::from(len) + 4,
        };
        at = usize::try_from(len)
            .ok()
            .and_then(|len| at.checked_add(len))
            .unwrap_or(bytes.len())
            .min(bytes.len());
    }
}
