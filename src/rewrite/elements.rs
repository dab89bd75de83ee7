//! The element section: what tables hold, and which functions are declared.
//!
//! Before, when `wizer.initialize` has put `$b` into slot 1 and dropped `$spare`:
//!
//! ```wat
//! (module
//!   (table $t 2 funcref)
//!   (elem (table $t) (i32.const 0) func $a)
//!   (elem $spare func $b)
//!   (func $a) (func $b)
//!   (func $init (export "wizer.initialize")
//!     (table.init $spare (i32.const 1) (i32.const 0) (i32.const 1))
//!     (elem.drop $spare)))
//! ```
//!
//! After (a segment without items is as good as dropped, and `$b` stays declared):
//!
//! ```wat
//! (module
//!   (table $t 2 funcref)
//!   (elem (table $t) (i32.const 0) func $a $b)
//!   (elem $spare func)
//!   (func $a) (func $b)
//!   (func $init
//!     (table.init $spare (i32.const 1) (i32.const 0) (i32.const 1))
//!     (elem.drop $spare)))
//! ```

use std::collections::{HashSet, VecDeque};

use wasm_encoder::{ConstExpr, Encode};
use wasmparser::{BinaryReader, ConstExpr as Expr, ElementItems, FromReader, Operator, RefType};

use super::{Renumbered, reference, uses};
use crate::module::{ElementSegment, ExternKind, Module, section};
use crate::snapshot::references::{Item, Run};
use crate::snapshot::{Constant, Snapshot};
use crate::splice::{Rope, Splice};

/// Writes the element section: the tables' contents, the passive segments, and declarations of
/// functions that would no longer be declared. `removed` are functions that are exported no more.
///
/// Where instructions name segments, each one keeps its index. The ones that were active are
/// dropped at instantiation whatever they hold, so their places serve for the new ones.
pub fn elements<'a>(
    module: &'a Module<'a>,
    snapshot: &Snapshot<'_>,
    removed: &[u32],
    splice: &mut Splice<'a>,
) -> Renumbered {
    let undeclared = undeclared(module, snapshot, removed);
    let mut planned = Planned::default();
    for table in &snapshot.tables {
        let ty = &module.tables.get(table.index).expect("a table").ty;
        for run in &table.runs {
            let (ty, segment) = active(table.index, ty, run);
            planned.add(ty, segment);
        }
    }
    let replaced = |segment: &&ElementSegment| snapshot.replaces_elements(segment);
    let places = || module.elements.iter().filter(replaced);
    let identity = || (0..module.elements.len() as u32).map(|i| (i, i)).collect();
    if planned.is_empty()
        && places().next().is_none()
        && snapshot.dropped_elements.is_empty()
        && undeclared.is_empty()
    {
        return identity();
    }
    // Where no place is left over, nobody needs to know.
    let keep_places = planned.fill_all(places()) || uses::names(module, uses::Segments::Elements);

    let mut contents = Rope::new();
    let mut count = 0;
    let mut renumbered = Renumbered::new();
    for (index, segment) in (0..).zip(&module.elements) {
        let bytes = &module.bytes[segment.range.clone()];
        if snapshot.replaces_elements(segment) {
            if !keep_places {
                continue;
            }
            match planned.take(segment.ty) {
                Some(next) => contents.write(&next),
                None => contents.write(&empty(segment.ty)),
            };
        } else if snapshot.dropped_elements.contains(&index) {
            contents.write(&empty(segment.ty));
        } else {
            renumbered.insert(index, count);
            contents.borrow(bytes);
        }
        count += 1;
    }
    for next in planned.rest() {
        contents.write(&next);
        count += 1;
    }
    if !undeclared.is_empty() {
        contents.write(&[3, 0]).encode(&undeclared[..]);
        count += 1;
    }
    if count == 0 {
        splice.drop(section::ELEMENT);
    } else {
        let mut counted = Rope::new();
        counted.leb(count).append(contents);
        splice.replace(section::ELEMENT, counted);
    }
    renumbered
}

/// New segments by the type of their items. An instruction that names the place of a segment is
/// valid for that type.
#[derive(Default)]
struct Planned(Vec<(RefType, VecDeque<Vec<u8>>)>);

impl Planned {
    fn of(&mut self, ty: RefType) -> Option<&mut VecDeque<Vec<u8>>> {
        let mut all = self.0.iter_mut();
        all.find(|(of, _)| *of == ty).map(|(_, segments)| segments)
    }

    fn add(&mut self, ty: RefType, segment: Vec<u8>) {
        match self.of(ty) {
            Some(segments) => segments.push_back(segment),
            None => self.0.push((ty, [segment].into())),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next one of this type.
    fn take(&mut self, ty: RefType) -> Option<Vec<u8>> {
        self.of(ty)?.pop_front()
    }

    /// Whether there is one for each of these places.
    fn fill_all<'s>(&self, places: impl Iterator<Item = &'s ElementSegment>) -> bool {
        let mut wanted: Vec<(RefType, usize)> = Vec::new();
        for place in places {
            match wanted.iter_mut().find(|(ty, _)| *ty == place.ty) {
                Some((_, count)) => *count += 1,
                None => wanted.push((place.ty, 1)),
            }
        }
        let mut wanted = wanted.into_iter();
        let of = |ty| self.0.iter().find(|(of, _)| *of == ty);
        wanted.all(|(ty, count)| of(ty).is_some_and(|(_, planned)| planned.len() >= count))
    }

    /// All that are left.
    fn rest(self) -> impl Iterator<Item = Vec<u8>> {
        self.0.into_iter().flat_map(|(_, segments)| segments)
    }
}

/// A passive segment of this type without items, which behaves as a dropped one.
fn empty(ty: RefType) -> Vec<u8> {
    if ty == RefType::FUNC {
        // Flag 1: passive, by function index; element kind 0.
        return vec![1, 0, 0];
    }
    // Flag 5: passive, by expression.
    let mut segment = vec![5];
    let ty: wasm_encoder::RefType = ty.try_into().expect("an encodable type");
    ty.encode(&mut segment);
    segment.push(0);
    segment
}

/// A segment that puts a run into a table, and the type of its items.
fn active(table: u32, ty: &wasmparser::TableType, run: &Run) -> (RefType, Vec<u8>) {
    let offset = match ty.table64 {
        true => ConstExpr::i64_const(run.start as i64),
        false => ConstExpr::i32_const(run.start as u32 as i32),
    };
    let functions = run.items.iter().map(|item| match item {
        Item::Func(index) => Some(*index),
        _ => None,
    });
    let functions: Option<Vec<u32>> = functions.collect();
    // By function index where that can be, which is shorter and what the first version of
    // WebAssembly has.
    let by_index = functions.filter(|_| ty.element_type.as_non_null() == RefType::FUNC);
    let mut segment = Vec::new();
    match (table, &by_index) {
        (0, Some(_)) => segment.push(0),
        (_, Some(_)) => [2, table].iter().for_each(|n| n.encode(&mut segment)),
        (_, None) => [6, table].iter().for_each(|n| n.encode(&mut segment)),
    }
    offset.encode(&mut segment);
    match by_index {
        Some(functions) => {
            if table != 0 {
                segment.push(0);
            }
            functions.encode(&mut segment);
            (RefType::FUNC, segment)
        }
        None => {
            let element: wasm_encoder::RefType =
                ty.element_type.try_into().expect("an encodable type");
            element.encode(&mut segment);
            run.items.len().encode(&mut segment);
            for item in &run.items {
                reference(*item, ty.element_type).encode(&mut segment);
            }
            (ty.element_type, segment)
        }
    }
}

/// The functions that the code refers to and that the rest of the output no longer declares, as
/// it must for each that `ref.func` names.
fn undeclared(module: &Module<'_>, snapshot: &Snapshot<'_>, removed: &[u32]) -> Vec<u32> {
    let mut lost: HashSet<u32> = removed.iter().copied().collect();
    let segments = || (0..).zip(&module.elements);
    let is_gone = |index: u32, segment: &ElementSegment| {
        snapshot.replaces_elements(segment) || snapshot.dropped_elements.contains(&index)
    };
    for (_, segment) in segments().filter(|(index, segment)| is_gone(*index, segment)) {
        lost.extend(declared_by(module, segment));
    }
    for (index, constant) in &snapshot.globals {
        let global = module.globals.get(*index).expect("a global of the module");
        if let (Constant::Reference(_), Some(init)) = (constant, &global.init) {
            lost.extend(named_by(init));
        }
    }
    if lost.is_empty() {
        return Vec::new();
    }
    let mut keep = |functions: &mut dyn Iterator<Item = u32>| {
        functions.for_each(|function| {
            lost.remove(&function);
        });
    };
    for (_, segment) in segments().filter(|(index, segment)| !is_gone(*index, segment)) {
        keep(&mut declared_by(module, segment).into_iter());
    }
    for (index, global) in module.globals.defined() {
        match (snapshot.globals.get(&index), &global.init) {
            (None, Some(init)) => keep(&mut named_by(init).into_iter()),
            (Some(Constant::Reference(Item::Func(function))), _) => {
                keep(&mut std::iter::once(*function));
            }
            _ => {}
        }
    }
    for (_, table) in module.tables.defined() {
        keep(&mut table.init.iter().flat_map(named_by));
    }
    let items = snapshot.tables.iter().flat_map(|table| &table.runs);
    keep(
        &mut items
            .flat_map(|run| &run.items)
            .filter_map(|item| match item {
                Item::Func(function) => Some(*function),
                _ => None,
            }),
    );
    let exported = module.exports.iter().filter(|e| e.kind == ExternKind::Func);
    let exported = exported.map(|export| export.index);
    keep(&mut exported.filter(|function| !removed.contains(function)));
    uses::referred_to(module, &lost)
}

/// The functions that a segment declares.
fn declared_by(module: &Module<'_>, segment: &ElementSegment) -> Vec<u32> {
    let mut reader = BinaryReader::new(&module.bytes[segment.range.clone()], 0);
    let segment = wasmparser::Element::from_reader(&mut reader);
    let Ok(segment) = segment else {
        return Vec::new();
    };
    match segment.items {
        ElementItems::Functions(functions) => functions.into_iter().flatten().collect(),
        ElementItems::Expressions(_, expressions) => {
            let expressions = expressions.into_iter().flatten();
            expressions
                .flat_map(|expression| named_by(&expression))
                .collect()
        }
    }
}

/// The functions that a constant expression refers to.
fn named_by(expr: &Expr<'_>) -> Vec<u32> {
    let operators = expr.get_operators_reader().into_iter().flatten();
    let functions = operators.filter_map(|operator| match operator {
        Operator::RefFunc { function_index } => Some(function_index),
        _ => None,
    });
    functions.collect()
}
