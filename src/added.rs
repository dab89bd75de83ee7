//! What is added to a module: items behind those that a section has, and functions behind those of
//! the module. Bodies that are there stay where they are, but for a count that may be longer.

use wasm_encoder::{Encode, ExportKind, Function, Instruction, ValType};

use crate::module::{Module, section};
use crate::splice::{Patch, Splice};

/// The items appended to one section.
#[derive(Default)]
pub struct Items {
    pub count: u32,
    pub bytes: Vec<u8>,
}

impl Items {
    pub fn push(&mut self, item: &impl Encode) {
        item.encode(&mut self.bytes);
        self.count += 1;
    }

    pub fn export(&mut self, name: &str, kind: ExportKind, index: u32) {
        name.encode(&mut self.bytes);
        kind.encode(&mut self.bytes);
        index.encode(&mut self.bytes);
        self.count += 1;
    }
}

/// The types that are added.
pub struct Types {
    next: u32,
    items: Items,
}

impl Types {
    pub fn new(module: &Module<'_>) -> Types {
        Types {
            next: module.type_count(),
            items: Items::default(),
        }
    }

    /// Adds a type in the binary format. Returns its index.
    pub fn push(&mut self, bytes: &[u8]) -> u32 {
        self.items.bytes.extend_from_slice(bytes);
        self.items.count += 1;
        self.next += 1;
        self.next - 1
    }

    /// Adds the type of a function. Returns its index.
    pub fn function(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        // The form of functions.
        let mut bytes = vec![0x60];
        params.encode(&mut bytes);
        results.encode(&mut bytes);
        self.push(&bytes)
    }

    /// Writes them behind those of the module.
    pub fn write(&self, splice: &mut Splice<'_>) {
        splice.append(section::TYPE, self.items.count, &self.items.bytes);
    }
}

/// The functions that are added.
pub struct Functions {
    next: u32,
    types: Items,
    bodies: Items,
}

impl Functions {
    pub fn new(module: &Module<'_>) -> Functions {
        Functions {
            next: module.functions.len(),
            types: Items::default(),
            bodies: Items::default(),
        }
    }

    /// Adds a function of the type of this index. Returns its own index.
    pub fn push(&mut self, ty: u32, body: &[Instruction<'_>]) -> u32 {
        let mut function = Function::new([]);
        for instruction in body {
            function.instruction(instruction);
        }
        function.instruction(&Instruction::End);
        self.push_function(ty, &function)
    }

    /// As [`Functions::push`], with locals.
    pub fn push_function(&mut self, ty: u32, function: &Function) -> u32 {
        self.types.push(&ty);
        self.bodies.push(function);
        self.next += 1;
        self.next - 1
    }

    /// Writes them behind those of the module, whose bodies have patches.
    pub fn write(&self, splice: &mut Splice<'_>, patches: &[Patch]) {
        splice.append(section::FUNCTION, self.types.count, &self.types.bytes);
        let Items { count, bytes } = &self.bodies;
        splice.patch_and_append(section::CODE, patches, *count, bytes);
    }
}
