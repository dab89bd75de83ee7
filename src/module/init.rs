//! The start function by which the instances of a module agree who initializes their shared memory.

use wasmparser::Operator;

/// What such a start function does.
pub struct SharedMemoryInit {
    /// The address of the flag.
    pub flag: u64,
    /// The data segments that each instance drops in the end.
    pub drops: Vec<u32>,
}

/// What the start function does, if these are the instructions of `wasm-ld`'s
/// `__wasm_init_memory`. Nothing but the first instance's part may differ, and there only what
/// writes to the memory and sets globals.
///
/// ```wat
/// (block (block (block
///   (br_table 0 1 2 (i32.atomic.rmw.cmpxchg (i32.const FLAG) (i32.const 0) (i32.const 1))))
///     … ;; the first instance: `memory.init`, `memory.fill`, `global.set`
///     (i32.atomic.store (i32.const FLAG) (i32.const 2))
///     (drop (memory.atomic.notify (i32.const FLAG) (i32.const -1)))
///     (br 1))
///   (drop (memory.atomic.wait32 (i32.const FLAG) (i32.const 1) (i64.const -1))))
/// (data.drop …) …
/// ```
pub fn recognize(operators: &[Operator<'_>], memory: u32) -> Option<SharedMemoryInit> {
    use Operator as O;
    let [
        O::Block { .. },
        O::Block { .. },
        O::Block { .. },
        address,
        O::I32Const { value: 0 },
        O::I32Const { value: 1 },
        O::I32AtomicRmwCmpxchg { memarg },
        O::BrTable { targets },
        O::End,
        rest @ ..,
        O::End,
    ] = operators
    else {
        return None;
    };
    let depths: Vec<u32> = targets.targets().collect::<Result<_, _>>().ok()?;
    if memarg.memory != memory || depths != [0, 1] || targets.default() != 2 {
        return None;
    }
    let flag = at(address)?.checked_add(memarg.offset)?;
    let is_flag = |operator: &O<'_>, offset: u64| at(operator)?.checked_add(offset);

    let drops = rest.iter().rev().map_while(|operator| match operator {
        O::DataDrop { data_index } => Some(*data_index),
        _ => None,
    });
    let drops: Vec<u32> = drops.collect();
    let [
        first @ ..,
        O::Br { relative_depth: 1 },
        O::End,
        waiting,
        O::I32Const { value: 1 },
        O::I64Const { value: -1 },
        O::MemoryAtomicWait32 { memarg: wait },
        O::Drop,
        O::End,
    ] = &rest[..rest.len() - drops.len()]
    else {
        return None;
    };
    let [
        first @ ..,
        storing,
        O::I32Const { value: 2 },
        O::I32AtomicStore { memarg: store },
        _,
        O::I32Const { value: -1 },
        O::MemoryAtomicNotify { .. },
        O::Drop,
    ] = first
    else {
        return None;
    };
    let is_harmless = |operator: &O<'_>| {
        matches!(
            operator,
            O::I32Const { .. }
                | O::I64Const { .. }
                | O::GlobalSet { .. }
                | O::MemoryInit { .. }
                | O::MemoryFill { .. }
        )
    };
    (wait.memory == memory
        && store.memory == memory
        && is_flag(waiting, wait.offset) == Some(flag)
        && is_flag(storing, store.offset) == Some(flag)
        && first.iter().all(is_harmless))
    .then_some(SharedMemoryInit { flag, drops })
}

/// The address that a constant is.
fn at(operator: &Operator<'_>) -> Option<u64> {
    match operator {
        Operator::I32Const { value } => Some(u64::from(*value as u32)),
        Operator::I64Const { value } => Some(*value as u64),
        _ => None,
    }
}
