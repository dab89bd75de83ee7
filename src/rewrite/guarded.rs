//! State of a memory that is shared between instances: written once, by whichever comes first.
//!
//! Every thread instantiates the module, so that nothing may be written by active segments. The
//! linker knows that problem: the start function that `wasm-ld` makes lets one instance
//! initialize the memory while the others wait, by a flag in the memory itself. The output has a
//! start function which does the same, by the same flag.
//!
//! Before (of `$start`, only what is recognized is shown):
//!
//! ```wat
//! (module
//!   (import "env" "memory" (memory 1 1 shared))
//!   (global $tls (mut i32) (i32.const 0))
//!   (data $initial "abc")
//!   (func $start
//!     … (i32.atomic.rmw.cmpxchg (i32.const 64) (i32.const 0) (i32.const 1)) …
//!     (memory.init $initial (i32.const 0) (i32.const 0) (i32.const 3)) …
//!     (data.drop $initial))
//!   (func (export "wizer.initialize")
//!     (global.set $tls (i32.const 128))
//!     (i32.store8 (i32.const 3) (i32.const 100)))
//!   (start $start))
//! ```
//!
//! After:
//!
//! ```wat
//! (module
//!   (import "env" "memory" (memory 1 1 shared))
//!   (global $tls (mut i32) (i32.const 0))
//!   (data "")
//!   (data $state "abcd")
//!   (func $start …)
//!   (func …)
//!   (func $once
//!     (block $done (block $wait (block $first
//!       (br_table $first $wait $done
//!         (i32.atomic.rmw.cmpxchg (i32.const 64) (i32.const 0) (i32.const 1))))
//!       (memory.init $state (i32.const 0) (i32.const 0) (i32.const 4))
//!       (global.set $tls (i32.const 128))
//!       (i32.atomic.store (i32.const 64) (i32.const 2))
//!       (drop (memory.atomic.notify (i32.const 64) (i32.const -1)))
//!       (br $done))
//!       (drop (memory.atomic.wait32 (i32.const 64) (i32.const 1) (i64.const -1))))
//!     (data.drop $state))
//!   (start $once))
//! ```

use wasm_encoder::{BlockType, Instruction, MemArg};

use super::Renumbered;
use crate::added::Functions;
use crate::error::Error;
use crate::module::{Module, section};
use crate::snapshot::{Constant, Guard, Snapshot};
use crate::splice::{Rope, Splice};
use crate::value::Value;

/// What the first instance does: segments by index, with the place and length of each.
struct Once<'s> {
    segments: Vec<(u32, u64, u32)>,
    globals: &'s std::collections::BTreeMap<u32, Constant>,
}

/// Writes the data section and the start function.
///
/// The input's segments keep their places. Those that were dropped are empty; the ones that hold
/// the state are passive and come behind them.
pub fn write<'a>(
    module: &'a Module<'a>,
    snapshot: &'a Snapshot<'_>,
    guard: &Guard,
    added: &mut Functions,
    splice: &mut Splice<'a>,
) -> Result<(Renumbered, u32), Error> {
    let mut contents = Rope::new();
    let mut renumbered = Renumbered::new();
    let mut count = 0;
    for (index, segment) in (0..).zip(&module.data) {
        if snapshot.replaces_data(segment) || snapshot.dropped_data.contains(&index) {
            // Passive, and empty.
            contents.write(&[1, 0]);
        } else {
            contents.borrow(&module.bytes[segment.range.clone()]);
            renumbered.insert(index, count);
        }
        count += 1;
    }
    let mut segments = Vec::new();
    for memory in &snapshot.memories {
        for range in &memory.segments {
            let bytes = &memory.bytes[range.clone()];
            segments.push((count, range.start as u64, bytes.len() as u32));
            contents.write(&[1]).leb(bytes.len() as u32).borrow(bytes);
            count += 1;
        }
    }
    super::check_size(module, contents.len())?;
    let mut counted = Rope::new();
    counted.leb(count).append(contents);
    splice.replace(section::DATA, counted);
    let mut data_count = Rope::new();
    data_count.leb(count);
    splice.replace(section::DATA_COUNT, data_count);
    let once = Once {
        segments,
        globals: &snapshot.globals,
    };
    // The module has a start function, or there would be no guard.
    let ty = module.start.and_then(|start| module.functions.get(start));
    let ty = *ty.ok_or_else(|| Error::internal("a guard without a start function"))?;
    let mut start = Rope::new();
    start.leb(added.push(ty, &instructions(guard, &once)));
    splice.replace(section::START, start);
    Ok((renumbered, count))
}

/// What the start function does.
fn instructions(guard: &Guard, once: &Once<'_>) -> Vec<Instruction<'static>> {
    use Instruction as I;
    let mut body = Vec::new();
    let mut add = |instruction: I<'static>| body.push(instruction);
    let address = |at: u64| match guard.memory64 {
        true => I::I64Const(at as i64),
        false => I::I32Const(at as u32 as i32),
    };
    let flag = MemArg {
        offset: 0,
        align: 2,
        memory_index: guard.memory,
    };
    for _ in 0..3 {
        add(I::Block(BlockType::Empty));
    }
    add(address(guard.flag));
    add(I::I32Const(0));
    add(I::I32Const(1));
    add(I::I32AtomicRmwCmpxchg(flag));
    add(I::BrTable(vec![0, 1].into(), 2));
    add(I::End);
    for (segment, at, len) in &once.segments {
        add(address(*at));
        add(I::I32Const(0));
        add(I::I32Const(*len as i32));
        add(I::MemoryInit {
            mem: guard.memory,
            data_index: *segment,
        });
    }
    for (global, constant) in once.globals {
        let Constant::Number(value) = constant else {
            continue;
        };
        add(match value {
            Value::I32(value) => I::I32Const(*value),
            Value::I64(value) => I::I64Const(*value),
            Value::F32(bits) => I::F32Const(wasm_encoder::Ieee32::new(*bits)),
            Value::F64(bits) => I::F64Const(wasm_encoder::Ieee64::new(*bits)),
            Value::V128(bits) => I::V128Const(*bits as i128),
            Value::Ref(_) => continue,
        });
        add(I::GlobalSet(*global));
    }
    add(address(guard.flag));
    add(I::I32Const(2));
    add(I::I32AtomicStore(flag));
    add(address(guard.flag));
    add(I::I32Const(-1));
    add(I::MemoryAtomicNotify(flag));
    add(I::Drop);
    add(I::Br(1));
    add(I::End);
    add(address(guard.flag));
    add(I::I32Const(1));
    add(I::I64Const(-1));
    add(I::MemoryAtomicWait32(flag));
    add(I::Drop);
    add(I::End);
    for (segment, _, _) in &once.segments {
        add(I::DataDrop(*segment));
    }
    body
}
