//! Managed functions for debuggers: gdb's JIT interface, and the in-memory object files for it.
//!
//! The protocol is a list of symbol files at `__jit_debug_descriptor`, and a function that is
//! called after each change, on which the debugger has a breakpoint. The debugger finds both by
//! name, so a process has one of each.

mod class;
mod lines;

use std::ptr;
use std::sync::{Mutex, PoisonError};

use object::elf;
use object::endian::{LittleEndian, U16, U32};
use object::pod::{Pod, bytes_of};

use self::class::{FileHeader, SectionHeader, Sym, flags, word};
use crate::arch;
use crate::region::Region;

const NO_ACTION: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

/// `struct jit_code_entry` of the protocol.
#[repr(C)]
struct CodeEntry {
    next: *mut CodeEntry,
    prev: *mut CodeEntry,
    symfile_addr: *const u8,
    symfile_size: u64,
}

/// `struct jit_descriptor` of the protocol.
#[repr(C)]
struct Descriptor {
    version: u32,
    action_flag: u32,
    relevant_entry: *mut CodeEntry,
    first_entry: *mut CodeEntry,
}

/// Read by debuggers; written under [`LOCK`].
#[unsafe(no_mangle)]
static mut __jit_debug_descriptor: Descriptor = Descriptor {
    version: 1,
    action_flag: NO_ACTION,
    relevant_entry: ptr::null_mut(),
    first_entry: ptr::null_mut(),
};

/// The address of the descriptor, for readers that do not go by its name.
pub fn debugger_descriptor() -> usize {
    (&raw const __jit_debug_descriptor) as usize
}

/// Where debuggers stop to read the descriptor.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn __jit_debug_register_code() {
    // Keeps the call, and all stores to the descriptor before it.
    // SAFETY: the assembly has no instruction.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

/// Held while the list or the descriptor changes.
static LOCK: Mutex<()> = Mutex::new(());

/// A symbol file that debuggers know for as long as this lives.
#[derive(Debug)]
pub(crate) struct SymbolFile {
    entry: *mut CodeEntry,
    _object: Box<[u8]>,
}

// SAFETY: the entry belongs to this value and is reached only under `LOCK`. Debuggers stop the
// whole process.
unsafe impl Send for SymbolFile {}

impl SymbolFile {
    /// Shows the functions and CFI of `region` to debuggers.
    pub(crate) fn announce(region: &Region) -> SymbolFile {
        let object = object_file(region);
        let (symfile_addr, symfile_size) = (object.as_ptr(), object.len() as u64);
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = &raw mut __jit_debug_descriptor;
        // SAFETY: `LOCK` is held, so no other thread reads or writes the descriptor or the list.
        // The entries of the list are live boxes.
        let entry = unsafe {
            let next = (*descriptor).first_entry;
            let entry = Box::into_raw(Box::new(CodeEntry {
                next,
                prev: ptr::null_mut(),
                symfile_addr,
                symfile_size,
            }));
            if !next.is_null() {
                (*next).prev = entry;
            }
            (*descriptor).first_entry = entry;
            tell(descriptor, REGISTER, entry);
            entry
        };
        SymbolFile { entry, _object: object }
    }
}

impl Drop for SymbolFile {
    fn drop(&mut self) {
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = &raw mut __jit_debug_descriptor;
        // SAFETY: `LOCK` is held. `announce` put the entry into the list, and it leaves it here,
        // once.
        unsafe {
            let CodeEntry { next, prev, .. } = *self.entry;
            if prev.is_null() {
                (*descriptor).first_entry = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
            tell(descriptor, UNREGISTER, self.entry);
            drop(Box::from_raw(self.entry));
        }
    }
}

/// # Safety
///
/// `LOCK` is held, `descriptor` is the one descriptor, and `entry` is live.
unsafe fn tell(descriptor: *mut Descriptor, action: u32, entry: *mut CodeEntry) {
    // SAFETY: as the caller promises.
    unsafe {
        (*descriptor).relevant_entry = entry;
        (*descriptor).action_flag = action;
        __jit_debug_register_code();
        (*descriptor).action_flag = NO_ACTION;
        (*descriptor).relevant_entry = ptr::null_mut();
    }
}

const LE: LittleEndian = LittleEndian;

/// Section numbers, in the order of the headers.
const TEXT: u16 = 1;
const STRTAB: u32 = 4;
const SHSTRTAB: u16 = 5;

/// A relocatable ELF object without the code: `.text` has the code's address in memory and no
/// bytes, `.eh_frame` is the region's, and `.symtab` names the functions. Where the lines of the
/// source are known, there are sections of DWARF for them.
fn object_file(region: &Region) -> Box<[u8]> {
    let mut strtab = vec![0];
    let mut symtab = bytes_of(&symbol(0, 0, 0, 0)).to_vec();
    for function in &region.functions {
        let name = strtab.len() as u32;
        // A zero byte would end the name.
        strtab.extend(function.name.bytes().take_while(|byte| *byte != 0));
        strtab.push(0);
        let start = function.start.wrapping_sub(region.start);
        symtab.extend(bytes_of(&symbol(name, TEXT, start, function.len)));
    }
    let mut eh_frame = region.eh_frame.clone();
    eh_frame.extend([0; 4]);
    let names = b"\0.text\0.eh_frame\0.symtab\0.strtab\0.shstrtab\0\
        .debug_abbrev\0.debug_info\0.debug_line\0";
    let debug = lines::sections(region);
    let name = |text: &str| {
        // The empty name stands at the start too.
        let at = (1..names.len())
            .find(|at| !text.is_empty() && names[*at..].starts_with(text.as_bytes()));
        U32::new(LE, at.unwrap_or(0) as u32)
    };

    let mut file = vec![0; size_of::<FileHeader>()];
    let mut put = |bytes: &[u8]| {
        file.resize(file.len().next_multiple_of(arch::WORD), 0);
        let offset = word(file.len());
        file.extend(bytes);
        (offset, word(bytes.len()))
    };
    let contents = [put(&eh_frame), put(&symtab), put(&strtab), put(names)];
    let debug: Vec<_> = debug.iter().map(|(name, bytes)| (*name, put(bytes))).collect();
    let section = |text: &str, kind, of, (sh_offset, sh_size)| SectionHeader {
        sh_name: name(text),
        sh_type: U32::new(LE, kind),
        sh_flags: flags(of),
        sh_addr: word(0),
        sh_offset,
        sh_size,
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, 0),
        sh_addralign: word(arch::WORD),
        sh_entsize: word(0),
    };
    let nothing = (word(0), word(0));
    let text = SectionHeader {
        sh_addr: word(region.start),
        sh_addralign: word(1),
        ..section(
            ".text",
            elf::SHT_NOBITS,
            elf::SHF_ALLOC | elf::SHF_EXECINSTR,
            (word(0), word(region.len)),
        )
    };
    let symtab = SectionHeader {
        sh_link: U32::new(LE, STRTAB),
        // The first symbol that is not local.
        sh_info: U32::new(LE, 1),
        sh_entsize: word(size_of::<Sym>()),
        ..section(".symtab", elf::SHT_SYMTAB, elf::SectionFlags(0), contents[1])
    };
    let mut headers = vec![
        section("", elf::SHT_NULL, elf::SectionFlags(0), nothing),
        text,
        SectionHeader {
            sh_addr: word(region.eh_frame_address),
            ..section(".eh_frame", elf::SHT_PROGBITS, elf::SHF_ALLOC, contents[0])
        },
        symtab,
        section(".strtab", elf::SHT_STRTAB, elf::SectionFlags(0), contents[2]),
        section(".shstrtab", elf::SHT_STRTAB, elf::SectionFlags(0), contents[3]),
    ];
    headers.extend(
        debug
            .into_iter()
            .map(|(name, place)| section(name, elf::SHT_PROGBITS, elf::SectionFlags(0), place)),
    );
    let places: Vec<_> = headers.iter().map(|header| put(bytes_of(header)).0).collect();
    let first = places[0];
    let header = FileHeader {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: arch::ELF_CLASS,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_REL),
        e_machine: U16::new(LE, arch::ELF_MACHINE),
        e_version: U32::new(LE, 1),
        e_entry: word(0),
        e_phoff: word(0),
        e_shoff: first,
        e_flags: U32::new(LE, elf::FileFlags(0)),
        e_ehsize: half::<FileHeader>(),
        e_phentsize: U16::new(LE, 0),
        e_phnum: U16::new(LE, 0),
        e_shentsize: half::<SectionHeader>(),
        e_shnum: U16::new(LE, headers.len() as u16),
        e_shstrndx: U16::new(LE, elf::SymbolSection(SHSTRTAB)),
    };
    let header = bytes_of(&header);
    file[..header.len()].copy_from_slice(header);
    file.into_boxed_slice()
}

/// The size of `T` as a half word.
fn half<T: Pod>() -> U16<LittleEndian> {
    U16::new(LE, size_of::<T>() as u16)
}

fn symbol(name: u32, section: u16, value: usize, size: usize) -> Sym {
    let kind = if section == 0 { elf::STT_NOTYPE } else { elf::STT_FUNC };
    let bind = if section == 0 { elf::STB_LOCAL } else { elf::STB_GLOBAL };
    Sym {
        st_name: U32::new(LE, name),
        st_info: elf::SymbolInfo::new(bind, kind),
        st_other: elf::SymbolOther(0),
        st_shndx: U16::new(LE, elf::SymbolSection(section)),
        st_value: word(value),
        st_size: word(size),
    }
}
