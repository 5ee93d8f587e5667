//! Whether code signs its return addresses. On arm64 its CFI says so, by a vendor operation.

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, LittleEndian, UnwindSection, Vendor,
};

use crate::arch::ADDRESS_SIZE;

/// Whether any function of this `.eh_frame`, with absolute pcs, signs its return address (arm64
/// PAC, `DW_CFA_AARCH64_negate_ra_state`). Malformed bytes end the search.
pub fn signs_return_addresses(eh_frame: &[u8]) -> bool {
    signs(eh_frame, 0)
}

/// As [`signs_return_addresses`], for a section that lies at `address`, unless that is 0.
pub(crate) fn signs(eh_frame: &[u8], address: usize) -> bool {
    let mut frame = EhFrame::new(eh_frame, LittleEndian);
    frame.set_address_size(ADDRESS_SIZE);
    // The operation's number has another meaning for other vendors.
    frame.set_vendor(Vendor::AArch64);
    let mut bases = BaseAddresses::default();
    if address != 0 {
        bases = bases.set_eh_frame(address as u64);
    }
    let signs = |mut operations: gimli::CallFrameInstructionIter<'_, _>| {
        while let Ok(Some(operation)) = operations.next() {
            if operation == CallFrameInstruction::NegateRaState {
                return true;
            }
        }
        false
    };
    let mut entries = frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let found = match entry {
            CieOrFde::Cie(cie) => signs(cie.instructions(&frame, &bases)),
            CieOrFde::Fde(partial) => partial
                .parse(EhFrame::cie_from_offset)
                .is_ok_and(|fde| signs(fde.instructions(&frame, &bases))),
        };
        if found {
            return true;
        }
    }
    false
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use gimli::write::{
        Address, CallFrameInstruction, CommonInformationEntry, EndianVec, FrameDescriptionEntry,
        FrameTable,
    };
    use gimli::{AArch64, Encoding, Format};

    /// The CFI of two functions, as compilers for arm64 write it; the second signs, if asked to.
    fn eh_frame(signed: bool) -> Vec<u8> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 1 };
        let mut cie = CommonInformationEntry::new(encoding, 4, -8, AArch64::X30);
        cie.add_instruction(CallFrameInstruction::Cfa(AArch64::SP, 0));
        let mut table = FrameTable::default();
        let cie = table.add_cie(cie);
        for (start, signs) in [(0x1000, false), (0x2000, signed)] {
            let mut fde = FrameDescriptionEntry::new(Address::Constant(start), 64);
            if signs {
                fde.add_instruction(4, CallFrameInstruction::NegateRaState);
            }
            fde.add_instruction(8, CallFrameInstruction::CfaOffset(32));
            fde.add_instruction(8, CallFrameInstruction::Offset(AArch64::X30, -24));
            table.add_fde(cie, fde);
        }
        let mut section = gimli::write::EhFrame(EndianVec::new(LittleEndian));
        table.write_eh_frame(&mut section).expect("absolute addresses");
        section.0.into_vec()
    }

    #[test]
    fn one_function_that_signs_is_enough() {
        assert!(signs_return_addresses(&eh_frame(true)));
        assert!(!signs_return_addresses(&eh_frame(false)));
    }

    #[test]
    fn bytes_that_are_no_cfi_say_nothing() {
        assert!(!signs_return_addresses(&[]));
        let whole = eh_frame(true);
        for len in 0..whole.len() {
            let _ = signs_return_addresses(&whole[..len]);
        }
    }
}
