//! Registration of managed code.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stackmark::unwind::stack_map::StackMap;
use stackmark::unwind::stack_map::llvm::{self, LlvmError};
use stackmark::unwind::{
    Announce, CodeError, Function, ManagedImage, Region, RegionId, Safepoint, SourceLines, Vectors,
};

use crate::abi::{
    BAD_CODE, Failure, Out, Versioned, code, given, make, put_text, read, slice, structs, text,
};
use crate::machine::inside;
use crate::numbers::{VECTORS_ALL, VECTORS_NARROW, VECTORS_RESULTS};
use crate::object::{Owned, Ref, kind};
use crate::runtime::RuntimeBox;

/// `stackmark_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionTable {
    pub(crate) size: usize,
    pub(crate) name: *const c_char,
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) eh_frame: *const u8,
    pub(crate) eh_frame_length: usize,
    pub(crate) functions: *const FunctionTable,
    pub(crate) function_count: usize,
    pub(crate) safepoints: *const SafepointTable,
    pub(crate) safepoint_count: usize,
    pub(crate) max_frame: u32,
    pub(crate) hide_from_debugger: u32,
    pub(crate) hide_from_unwinder: u32,
    pub(crate) vectors: u32,
    pub(crate) eh_frame_address: usize,
    pub(crate) llvm_stackmaps: *const u8,
    pub(crate) llvm_stackmaps_length: usize,
    pub(crate) llvm_stackmaps_bias: usize,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for RegionTable {}

/// `stackmark_function`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FunctionTable {
    pub(crate) size: usize,
    pub(crate) name: *const c_char,
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) moves_return_address: u32,
    pub(crate) reserved: u32,
    pub(crate) file: *const c_char,
    pub(crate) lines: *const [u32; 2],
    pub(crate) line_count: usize,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for FunctionTable {}

/// `stackmark_safepoint`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SafepointTable {
    pub(crate) size: usize,
    pub(crate) return_address: usize,
    pub(crate) slots: *const u32,
    pub(crate) cfa_offset: u32,
    pub(crate) slot_count: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for SafepointTable {}

impl From<CodeError> for Failure {
    fn from(error: CodeError) -> Failure {
        Failure::new(BAD_CODE, error)
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_register(
    runtime: Ref<RuntimeBox>,
    region: *const RegionTable,
    out: Out<'_, u64>,
) -> c_int {
    make(out, "out", || {
        // Relaxed: only the numbers' being distinct matters.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let runtime = runtime.given("runtime")?;
        given((!region.is_null()).then_some(()), "region")?;
        // SAFETY: the header asks for such structs and arrays.
        let region = unsafe { converted(&read(region, "region")?)? };
        let id = runtime.0.code().register(region)?;
        let number = NEXT.fetch_add(1, Relaxed);
        runtime.1.lock().insert(number, id);
        Ok(number)
    })
}

/// # Safety
/// The table's pointers are as the header asks.
unsafe fn converted(table: &RegionTable) -> Result<Region, Failure> {
    // SAFETY: by our contract.
    unsafe {
        let functions = structs(table.functions, table.function_count, "functions")?;
        let safepoints = structs(table.safepoints, table.safepoint_count, "safepoints")?;
        let slots = |safepoint: &SafepointTable| {
            slice(safepoint.slots, safepoint.slot_count as usize, "slots")
        };
        Ok(Region {
            name: text(table.name),
            start: table.start,
            len: table.length,
            eh_frame: slice(table.eh_frame, table.eh_frame_length, "eh_frame")?.to_vec(),
            eh_frame_address: table.eh_frame_address,
            // The library for C is not there for Windows.
            unwind_info: Vec::new(),
            functions: functions
                .iter()
                .map(|function: &FunctionTable| {
                    Ok(Function {
                        name: text(function.name),
                        start: function.start,
                        len: function.length,
                        moves_return_address: function.moves_return_address != 0,
                        source: source(function)?,
                    })
                })
                .collect::<Result<_, Failure>>()?,
            safepoints: safepoints
                .iter()
                .map(|safepoint| {
                    Ok(Safepoint {
                        return_address: safepoint.return_address,
                        cfa_offset: safepoint.cfa_offset,
                        slots: slots(safepoint)?.to_vec(),
                    })
                })
                .collect::<Result<_, Failure>>()?,
            stack_maps: stack_maps(
                slice(table.llvm_stackmaps, table.llvm_stackmaps_length, "llvm_stackmaps")?,
                table.llvm_stackmaps_bias,
            )?,
            max_frame: (table.max_frame != 0).then_some(table.max_frame),
            vectors: match table.vectors {
                VECTORS_ALL => Vectors::All,
                VECTORS_NARROW => Vectors::Narrow,
                VECTORS_RESULTS => Vectors::Results,
                other => {
                    return Err(Failure::new(BAD_CODE, format_args!("vectors is {other}")));
                }
            },
            announce: Announce {
                debugger: table.hide_from_debugger == 0,
                system_unwinder: table.hide_from_unwinder == 0,
            },
        })
    }
}

/// The maps of a section of LLVM's whose functions lie `bias` bytes above where it says.
fn stack_maps(section: &[u8], bias: usize) -> Result<Vec<StackMap>, Failure> {
    let failed = |error| Failure::new(BAD_CODE, format_args!("llvm_stackmaps: {error}"));
    let moved = |map: Result<StackMap, LlvmError>| {
        let mut map = map.map_err(failed)?;
        map.return_address = map.return_address.wrapping_add(bias);
        Ok(map)
    };
    llvm::stack_maps(section).map_err(failed)?.into_iter().map(moved).collect()
}

/// # Safety
/// As for [`converted`].
unsafe fn source(function: &FunctionTable) -> Result<Option<SourceLines>, Failure> {
    if function.file.is_null() {
        return Ok(None);
    }
    // SAFETY: by our contract.
    let (file, lines) =
        unsafe { (text(function.file), slice(function.lines, function.line_count, "lines")?) };
    let lines = lines.iter().map(|&[offset, line]| (offset, line)).collect();
    Ok(Some(SourceLines { file: file.into(), lines }))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_unregister(runtime: Ref<RuntimeBox>, region: u64) -> c_int {
    code(unregister(&runtime, &[region]))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_unregister_all(
    runtime: Ref<RuntimeBox>,
    regions: *const u64,
    count: usize,
) -> c_int {
    // SAFETY: the header asks for such an array.
    code(unsafe { slice(regions, count, "regions") }.and_then(|all| unregister(&runtime, all)))
}

fn unregister(runtime: &Ref<RuntimeBox>, numbers: &[u64]) -> Result<(), Failure> {
    let runtime = runtime.given("runtime")?;
    assert_outside()?;
    let id = |number: &u64| {
        let text = format_args!("no region {number} is registered in this runtime").to_string();
        runtime.1.lock().get(number).copied().ok_or_else(|| Failure::invalid(text))
    };
    let ids = numbers.iter().map(id).collect::<Result<Vec<RegionId>, _>>()?;
    // Not under the lock: this waits for goroutines, which may register meanwhile.
    runtime.0.unregister(&ids).map_err(|error| Failure::new(BAD_CODE, error))?;
    let mut regions = runtime.1.lock();
    for number in numbers {
        regions.remove(number);
    }
    Ok(())
}

/// # Errors
/// This thread counts as running: what stops the world would wait for it.
fn assert_outside() -> Result<(), Failure> {
    let text = "forgetting code waits for this thread, which counts as running";
    if inside().is_ok() { Err(Failure::invalid(text)) } else { Ok(()) }
}

/// `stackmark_image`.
#[derive(Debug)]
pub(crate) struct ImageBox(ManagedImage);

kind!(ImageBox = "stackmark_image");

#[unsafe(no_mangle)]
extern "C" fn stackmark_register_image(
    runtime: Ref<RuntimeBox>,
    address: usize,
    out: Out<'_, Owned<ImageBox>>,
) -> c_int {
    make(out, "out", || {
        let image = runtime.given("runtime")?.0.register_image(address);
        Ok(Owned::new(ImageBox(image.map_err(|error| Failure::new(BAD_CODE, error))?)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_unregister_image(
    runtime: Ref<RuntimeBox>,
    image: Owned<ImageBox>,
) -> c_int {
    code((|| {
        let (runtime, registered) = (runtime.given("runtime")?, image.given("image")?);
        assert_outside()?;
        let failed = |error| Failure::new(BAD_CODE, error);
        runtime.0.unregister_image(&registered.0).map_err(failed)?;
        drop(image.take("stackmark_unregister_image: image"));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_function_name(
    runtime: Ref<RuntimeBox>,
    pc: usize,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    let runtime = runtime.get("stackmark_function_name: runtime");
    let snapshot = runtime.map(|runtime| runtime.0.code().snapshot());
    let function = snapshot.as_ref().and_then(|snapshot| snapshot.function(pc));
    // SAFETY: the header asks for such a buffer.
    unsafe { put_text(function.map_or("", |function| function.name), buffer, capacity) }
}
