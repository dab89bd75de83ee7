//! The memories and tables of a module, by the names under which its host asks for them.

use wasmparser::{AbstractHeapType, HeapType, RefType};

use super::{ExternKind, Module};

/// How modules export the memory that hosts work on.
pub const MEMORY: &str = "memory";

/// How linkers export the table of the functions that pointers name.
const TABLE: &str = "__indirect_function_table";

/// What a host can ask a module for, beside its exported functions and globals. It knows nothing
/// of an instance: the index that it gives is that of the module.
///
/// A thing goes by the name of an export, else by that of an import, written `module.name`.
/// Without a name, it is the export of the usual name, else the only thing of its kind.
#[derive(Debug, Default)]
pub struct Directory {
    memories: Vec<Named>,
    /// Those that hold functions.
    tables: Vec<Named>,
}

/// A thing of a module.
#[derive(Debug)]
struct Named {
    index: u32,
    exports: Vec<String>,
    /// The two names under which it is imported.
    import: Option<(String, String)>,
}

impl Named {
    fn new(module: &Module<'_>, kind: ExternKind, index: u32) -> Named {
        let exports = module.exports.iter();
        let exports = exports.filter(|e| e.kind == kind && e.index == index);
        let import = module.import(kind, index);
        Named {
            index,
            exports: exports.map(|e| e.name.to_string()).collect(),
            import: import.map(|i| (i.module.to_string(), i.name.to_string())),
        }
    }

    fn is_exported_as(&self, name: &str) -> bool {
        self.exports.iter().any(|export| export == name)
    }

    fn is_imported_as(&self, name: &str) -> bool {
        self.imported().is_some_and(|import| import == name)
    }

    fn imported(&self) -> Option<String> {
        let (module, name) = self.import.as_ref()?;
        Some(format!("{module}.{name}"))
    }

    /// The name under which it is found, for messages.
    fn name(&self) -> Option<String> {
        self.exports.first().cloned().or_else(|| self.imported())
    }
}

impl Directory {
    /// The memories and tables of this module.
    pub fn new(module: &Module<'_>) -> Directory {
        let memories = module.memories.all();
        let tables = module.tables.all();
        let tables = tables.filter(|(_, table)| is_of_functions(module, table.ty.element_type));
        Directory {
            memories: memories
                .map(|(index, _)| Named::new(module, ExternKind::Memory, index))
                .collect(),
            tables: tables
                .map(|(index, _)| Named::new(module, ExternKind::Table, index))
                .collect(),
        }
    }

    /// The index of a memory.
    ///
    /// # Errors
    ///
    /// Where there is none of this name: which memories there are.
    pub fn memory(&self, name: Option<&str>) -> Result<u32, String> {
        find(&self.memories, name, MEMORY).ok_or_else(|| missing(&self.memories, name, "memory"))
    }

    /// The index of a table of functions.
    ///
    /// # Errors
    ///
    /// Where there is none of this name: which tables there are.
    pub fn table(&self, name: Option<&str>) -> Result<u32, String> {
        find(&self.tables, name, TABLE)
            .ok_or_else(|| missing(&self.tables, name, "table of functions"))
    }
}

/// Whether a reference type is one of functions.
fn is_of_functions(module: &Module<'_>, ty: RefType) -> bool {
    match ty.heap_type() {
        HeapType::Abstract { ty, .. } => ty == AbstractHeapType::Func,
        HeapType::Concrete(index) | HeapType::Exact(index) => {
            let ty = index.as_module_index();
            ty.is_some_and(|ty| module.function_type_at(ty).is_some())
        }
    }
}

fn find(all: &[Named], name: Option<&str>, usual: &str) -> Option<u32> {
    let exported = |name: &str| all.iter().find(|thing| thing.is_exported_as(name));
    let found = match name {
        Some(name) => exported(name).or_else(|| {
            let mut imported = all.iter().filter(|thing| thing.is_imported_as(name));
            let first = imported.next()?;
            // A dot in the names themselves could mean either of two.
            imported
                .all(|other| other.import == first.import)
                .then_some(first)
        }),
        None => exported(usual).or(match all {
            [only] => Some(only),
            _ => None,
        }),
    };
    found.map(|thing| thing.index)
}

/// What to say of a thing that is not found.
fn missing(all: &[Named], name: Option<&str>, kind: &str) -> String {
    let named: Vec<_> = all.iter().filter_map(Named::name).collect();
    let mut there: Vec<_> = named.iter().map(|name| format!("`{name}`")).collect();
    match all.len() - named.len() {
        0 => {}
        1 => there.push("one without a name".into()),
        more => there.push(format!("{more} without a name")),
    }
    let there = there.join(", ");
    match (name, all.is_empty()) {
        (None, true) => format!("the module has no {kind}"),
        (Some(name), true) => format!("the module has no {kind} `{name}`, nor any other"),
        (Some(name), false) => format!("the module has no {kind} `{name}`; what it has: {there}"),
        (None, false) => format!("which {kind} is meant has to be said; what there is: {there}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(wat: &str) -> Directory {
        let wasm = wat::parse_str(wat).unwrap();
        Directory::new(&Module::parse(&wasm).unwrap())
    }

    #[test]
    fn exports_come_before_imports_and_the_only_one_needs_no_name() {
        let one = directory(r#"(module (import "env" "memory" (memory 1)) (table 1 funcref))"#);
        assert_eq!(one.memory(None), Ok(0));
        assert_eq!(one.memory(Some("env.memory")), Ok(0));
        assert_eq!(one.table(None), Ok(0));
        let message = one.memory(Some("memory")).unwrap_err();
        assert_eq!(
            message,
            "the module has no memory `memory`; what it has: `env.memory`"
        );

        let several = directory(
            r#"(module (import "env" "a" (memory 1)) (memory (export "env.a") 1) (memory 1)
                 (table externref (elem)) (table (export "calls") 1 funcref))"#,
        );
        assert_eq!(several.memory(Some("env.a")), Ok(1));
        assert_eq!(
            several.memory(None).unwrap_err(),
            "which memory is meant has to be said; what there is: `env.a`, `env.a`, one without a name"
        );
        assert_eq!(several.table(None), Ok(1), "the only one of functions");
    }

    #[test]
    fn the_usual_names_come_first() {
        let two = directory(
            r#"(module (memory 1) (memory (export "memory") 1)
                 (table 1 funcref) (table (export "__indirect_function_table") 1 funcref))"#,
        );
        assert_eq!(two.memory(None), Ok(1));
        assert_eq!(two.table(None), Ok(1));
    }

    #[test]
    fn names_that_could_mean_two_things_mean_none() {
        let two =
            directory(r#"(module (import "a.b" "c" (memory 1)) (import "a" "b.c" (memory 1)))"#);
        assert!(two.memory(Some("a.b.c")).is_err());
        let twice =
            directory(r#"(module (import "a" "b" (memory 1)) (import "a" "b" (memory 1)))"#);
        assert_eq!(twice.memory(Some("a.b")), Ok(0));
    }

    #[test]
    fn what_is_not_there() {
        let none = directory("(module (table 1 externref))");
        assert_eq!(none.memory(None).unwrap_err(), "the module has no memory");
        assert_eq!(
            none.table(Some("t")).unwrap_err(),
            "the module has no table of functions `t`, nor any other"
        );
    }
}
