//! References as the binary format can write them, and the tables that hold them.

use std::collections::HashMap;

use wasmparser::{ConstExpr, HeapType, Operator, RefType, ValType};

use super::{describe_global, unrepresentable};
use crate::error::Error;
use crate::module::{ExternKind, Module, is_external};
use crate::value::{Reference, Value};

/// A reference that a constant expression can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Null,
    /// A function of the module, by its index.
    Func(u32),
    /// An unboxed integer; an external one in a place for such references.
    I31(u32),
    /// What an immutable global holds, by its index.
    Global {
        index: u32,
        /// Whether it is external and the place is not, or the place is and it is not.
        converted: bool,
    },
}

/// What references can be of: functions, and what immutable globals hold.
#[derive(Default)]
pub struct Referents {
    /// The index of each function, by the number that its references have in this run.
    functions: HashMap<u64, u32>,
    /// The immutable globals that hold each object or reference of the host, in order: the first of
    /// each type.
    globals: HashMap<Reference, Vec<(u32, RefType)>>,
}

impl Referents {
    /// Takes note of a function. Of several names for one, the first counts.
    pub fn add(&mut self, reference: Reference, index: u32) {
        if let Reference::Func(number) = reference {
            self.functions.entry(number).or_insert(index);
        }
    }

    /// Takes note of what an immutable global holds.
    pub fn add_global(&mut self, index: u32, value: Reference, ty: ValType) {
        if let Reference::Extern(_) | Reference::Handle(_) = value
            && let ValType::Ref(ty) = ty
        {
            let holding = self.globals.entry(value).or_default();
            if holding.iter().all(|(_, known)| *known != ty) {
                holding.push((index, ty));
            }
        }
    }

    /// One of the first so many globals, from which a place of this type can have a reference.
    fn global(
        &self,
        module: &Module<'_>,
        reference: Reference,
        ty: RefType,
        globals: u32,
    ) -> Option<Item> {
        let holding = self.globals.get(&reference)?.iter().copied();
        let mut holding = holding.take_while(|(index, _)| *index < globals);
        holding.find_map(|(index, from)| {
            let converted = is_external(from) != is_external(ty);
            let converted_to = match is_external(from) {
                true => RefType::ANY,
                false => RefType::EXTERN,
            };
            let got = match (converted, from.is_nullable()) {
                (false, _) => from,
                (true, true) => converted_to.nullable(),
                (true, false) => converted_to,
            };
            let fits = module.is_reference_subtype(got, ty);
            fits.then_some(Item::Global { index, converted })
        })
    }

    /// What can be written for a reference, in a place of this type whose expression can get the
    /// first so many `globals`.
    ///
    /// # Errors
    ///
    /// What it is instead, for people.
    pub fn item(
        &self,
        module: &Module<'_>,
        reference: Reference,
        ty: RefType,
        globals: u32,
    ) -> Result<Item, &'static str> {
        match reference {
            Reference::Null => Ok(Item::Null),
            Reference::I31(value) => Ok(Item::I31(value)),
            Reference::Func(number) => match self.functions.get(&number) {
                Some(index) if fits(module, *index, ty) => Ok(Item::Func(*index)),
                Some(_) => Err("holds an imported function whose import is of a wider type"),
                None => Err("holds a function that the module neither defines nor imports"),
            },
            other => match (self.global(module, other, ty, globals), other) {
                (Some(item), _) => Ok(item),
                (None, Reference::Handle(_)) => Err(
                    "holds an object of the garbage-collected heap that it can get from no \
                     immutable global",
                ),
                (None, other) => Err(super::untold(Value::Ref(other)).unwrap_or(
                    "holds a reference of the host that no imported immutable global holds",
                )),
            },
        }
    }

    /// What can be written for a global's value.
    pub fn of_global(
        &self,
        module: &Module<'_>,
        index: u32,
        value: Reference,
    ) -> Result<Item, Error> {
        let ty = module
            .globals
            .get(index)
            .map(|global| global.ty.content_type);
        let Some(ValType::Ref(ty)) = ty else {
            return Err(Error::internal("a global of numbers holds a reference"));
        };
        self.item(module, value, ty, index)
            .map_err(|what| unrepresentable(describe_global(module, index), what))
    }
}

/// A table whose contents the output's own instantiation would not bring about.
#[derive(Debug)]
pub struct TableSnapshot {
    pub index: u32,
    /// Its size, in slots.
    pub size: u64,
    /// What to write as element segments.
    pub runs: Vec<Run>,
    /// What the slots between them hold, where that can be written.
    between: Option<Item>,
}

/// Slots one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub items: Vec<Item>,
}

impl TableSnapshot {
    /// Plans what is to be written of a table.
    ///
    /// `before` is what an imported one held before the module was instantiated, and `None` for a
    /// table of the module's own.
    ///
    /// # Errors
    ///
    /// [`Error::Unrepresentable`] with the first slot that cannot be written.
    pub fn plan(
        module: &Module<'_>,
        index: u32,
        slots: &[Reference],
        before: Option<&[Reference]>,
        referents: &Referents,
    ) -> Result<TableSnapshot, Error> {
        let table = module.tables.get(index).expect("a table of the module");
        let initial = match &table.init {
            None => Some(Item::Null),
            Some(init) => constant(init),
        };
        let mut runs: Vec<Run> = Vec::new();
        for (slot, reference) in (0..).zip(slots) {
            // What nobody wrote to may hold what only the host knows.
            let is_as_before = |before: &[Reference]| match before.get(slot as usize) {
                Some(before) => before == reference,
                None => *reference == Reference::Null,
            };
            if before.is_some_and(is_as_before) {
                continue;
            }
            let element = table.ty.element_type;
            let item = referents.item(module, *reference, element, module.globals.len());
            let item = item.map_err(|what| {
                let table = super::describe(module, ExternKind::Table, index);
                unrepresentable(format!("slot {slot} of {table}"), what)
            })?;
            if before.is_none() && Some(item) == initial {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.start + run.items.len() as u64 == slot => run.items.push(item),
                _ => runs.push(Run {
                    start: slot,
                    items: vec![item],
                }),
            }
        }
        Ok(TableSnapshot {
            index,
            size: slots.len() as u64,
            runs,
            between: initial.filter(|_| before.is_none()),
        })
    }
}

/// Whether a function can be written where a type is wanted. One that is imported may be of a
/// narrower type than the import says, which a constant expression does not know.
fn fits(module: &Module<'_>, function: u32, ty: RefType) -> bool {
    let (wanted, is_exact) = match ty.heap_type() {
        HeapType::Abstract { .. } => return true,
        HeapType::Concrete(index) => (index.as_module_index(), false),
        HeapType::Exact(index) => (index.as_module_index(), true),
    };
    if function >= module.functions.imported() {
        return true;
    }
    match (module.functions.get(function).copied(), wanted) {
        (Some(declared), Some(wanted)) => {
            declared == wanted || (!is_exact && module.is_subtype(declared, wanted))
        }
        _ => false,
    }
}

/// The most element segments that engines accept in one module (wasmparser's
/// `MAX_WASM_ELEMENT_SEGMENTS`).
const MAX_SEGMENTS: usize = 100_000;

/// The most runs of a table, where there is a choice.
const MAX_RUNS: usize = 10_000;

/// Joins the runs of tables until engines accept as many segments besides `others`.
///
/// # Errors
///
/// [`Error::Unrepresentable`] where that cannot be done.
pub fn limit(
    module: &Module<'_>,
    tables: &mut [TableSnapshot],
    others: usize,
) -> Result<(), Error> {
    let room = MAX_SEGMENTS.saturating_sub(others);
    let each = MAX_RUNS.min(room / tables.len().max(1));
    for table in &mut *tables {
        if let Some(between) = table.between {
            join(&mut table.runs, between, each);
        }
    }
    let largest = tables.iter().max_by_key(|table| table.runs.len());
    let needed: usize = tables.iter().map(|table| table.runs.len()).sum();
    match largest {
        Some(table) if needed > room => Err(unrepresentable(
            super::describe(module, ExternKind::Table, table.index),
            "changed in more places than a module can have element segments (100,000)",
        )),
        _ => Ok(()),
    }
}

/// Joins runs across what is between them, shortest gaps first, until there are at most `max`.
fn join(runs: &mut Vec<Run>, between: Item, max: usize) {
    let mut longest = 1;
    while runs.len() > max.max(1) {
        runs.dedup_by(|next, last| {
            let gap = next.start - (last.start + last.items.len() as u64);
            let close = gap <= longest;
            if close {
                last.items.extend((0..gap).map(|_| between));
                last.items.append(&mut next.items);
            }
            close
        });
        longest *= 2;
    }
}

/// The reference that a constant expression makes, where that is plain to see.
fn constant(expr: &ConstExpr<'_>) -> Option<Item> {
    let mut operators = expr.get_operators_reader().into_iter();
    let mut next = || operators.next()?.ok();
    let item = match next()? {
        Operator::RefNull { .. } => Item::Null,
        Operator::RefFunc { function_index } => Item::Func(function_index),
        Operator::I32Const { value } => match next()? {
            Operator::RefI31 => Item::I31(value as u32 & 0x7fff_ffff),
            _ => return None,
        },
        _ => return None,
    };
    match (item, next()?) {
        (_, Operator::End) => Some(item),
        // The place's type says that it is one.
        (Item::I31(_), Operator::ExternConvertAny) => {
            matches!(next()?, Operator::End).then_some(item)
        }
        _ => None,
    }
}
