//! Bytes into [`Module`].

use wasmparser::{
    BinaryReaderError, Chunk, CompositeInnerType, ConstExpr, DataKind, ElementItems, ElementKind,
    Encoding, ExternalKind, FieldType, Operator, Parser, Payload, RefType, TableInit, TypeRef,
    WasmFeatures,
};

use super::{
    DataSegment, ElementSegment, Export, ExternKind, Global, Import, Module, ObjectType, Section,
    SegmentMode, Table,
};
use crate::error::Error;

/// What the binary format begins with.
const MAGIC: &[u8] = b"\0asm";

impl<'a> Module<'a> {
    /// Parses a core module in the binary format.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidModule`] where the sections do not hold together, [`Error::Component`]
    /// for a component.
    pub fn parse(bytes: &'a [u8]) -> Result<Module<'a>, Error> {
        let mut module = Module {
            bytes,
            ..Module::default()
        };
        if bytes.is_empty() {
            return Err(Error::InvalidModule {
                message: "the input is empty".into(),
                offset: Some(0),
            });
        }
        if bytes.len() >= MAGIC.len() && !bytes.starts_with(MAGIC) {
            return Err(Error::InvalidModule {
                message: "it begins neither with `\\0asm`, as the binary format does, nor with a \
                          parenthesis, as the text format does"
                    .into(),
                offset: Some(0),
            });
        }
        let mut parser = Parser::new(0);
        parser.set_features(WasmFeatures::all());
        let mut at = 0;
        loop {
            let (consumed, payload) = match parser.parse(&bytes[at..], true)? {
                Chunk::Parsed { consumed, payload } => (consumed, payload),
                Chunk::NeedMoreData(_) => unreachable!("the parser was told that this is all"),
            };
            if let Some((id, contents)) = payload.as_section() {
                module.sections.push(Section {
                    id,
                    start: at,
                    contents,
                });
            }
            at += consumed;
            match payload {
                Payload::CodeSectionStart { size, .. } => {
                    parser.skip_section();
                    at += size as usize;
                    if at > bytes.len() {
                        return Err(Error::InvalidModule {
                            message: "unexpected end of the code section".into(),
                            offset: Some(bytes.len()),
                        });
                    }
                }
                Payload::End(_) => return Ok(module),
                other => module.section_contents(other)?,
            }
        }
    }

    fn section_contents(&mut self, payload: Payload<'a>) -> Result<(), Error> {
        match payload {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            } => return Err(Error::Component { preload: None }),
            Payload::TypeSection(types) => {
                for group in types {
                    let group = group?;
                    let is_single = group.types().len() == 1;
                    for ty in group.into_types() {
                        let supertype = ty.supertype_idx.and_then(|i| i.as_module_index());
                        // Any other one is not valid, and following it might not end.
                        let earlier = supertype.filter(|i| (*i as usize) < self.types.len());
                        self.supertypes.push(earlier);
                        let stands_alone = is_single && ty.is_final && supertype.is_none();
                        self.stand_alone.push(stands_alone);
                        let is_set = |field: &FieldType| field.mutable;
                        self.objects.push(match &ty.composite_type.inner {
                            CompositeInnerType::Struct(ty) => Some(ObjectType {
                                is_array: false,
                                is_mutable: ty.fields.iter().any(is_set),
                            }),
                            CompositeInnerType::Array(ty) => Some(ObjectType {
                                is_array: true,
                                is_mutable: is_set(&ty.0),
                            }),
                            _ => None,
                        });
                        self.types.push(match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.functions.import(ty),
                        TypeRef::Table(ty) => self.tables.import(Table { ty, init: None }),
                        TypeRef::Memory(ty) => self.memories.import(ty),
                        TypeRef::Global(ty) => self.globals.import(Global {
                            ty,
                            init: None,
                            type_range: 0..0,
                        }),
                        TypeRef::Tag(_) => self.tags.import(()),
                    }
                    self.imports.push(Import {
                        module: import.module,
                        name: import.name,
                        ty: import.ty,
                    });
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.define(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    let table = table?;
                    let init = match table.init {
                        TableInit::Expr(expr) => Some(expr),
                        TableInit::RefNull => None,
                    };
                    if let Some(expr) = &init {
                        self.declare(expr)?;
                    }
                    self.tables.define(Table { ty: table.ty, init });
                }
            }
            Payload::MemorySection(memories) => {
                for ty in memories {
                    self.memories.define(ty?);
                }
            }
            Payload::TagSection(tags) => {
                for tag in tags {
                    tag?;
                    self.tags.define(());
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals.into_iter_with_offsets() {
                    let (start, global) = global?;
                    let init = global.init_expr.get_binary_reader();
                    self.declare(&global.init_expr)?;
                    self.globals.define(Global {
                        ty: global.ty,
                        init: Some(global.init_expr),
                        type_range: start..init.range().start,
                    });
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.exports.push(Export {
                        name: export.name,
                        kind: match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => ExternKind::Func,
                            ExternalKind::Table => ExternKind::Table,
                            ExternalKind::Memory => ExternKind::Memory,
                            ExternalKind::Global => ExternKind::Global,
                            ExternalKind::Tag => ExternKind::Tag,
                        },
                        index: export.index,
                    });
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::DataCountSection { .. } => self.has_data_count = true,
            Payload::ElementSection(segments) => {
                for segment in segments {
                    self.element_segment(segment?)?;
                }
            }
            Payload::DataSection(segments) => {
                for segment in segments {
                    let segment = segment?;
                    self.data.push(DataSegment {
                        mode: match segment.kind {
                            DataKind::Passive => SegmentMode::Passive,
                            DataKind::Active { memory_index, .. } => {
                                SegmentMode::Active(memory_index)
                            }
                        },
                        bytes: segment.data,
                        range: segment.range,
                    });
                }
            }
            Payload::UnknownSection { id, range, .. } => {
                return Err(Error::InvalidModule {
                    message: format!("unknown section id {id}"),
                    offset: Some(range.start),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn element_segment(&mut self, segment: wasmparser::Element<'a>) -> Result<(), Error> {
        let mode = match segment.kind {
            ElementKind::Passive => SegmentMode::Passive,
            ElementKind::Declared => SegmentMode::Declarative,
            ElementKind::Active { table_index, .. } => {
                SegmentMode::Active(table_index.unwrap_or(0))
            }
        };
        let mut makes_mutable = false;
        let (len, ty) = match segment.items {
            ElementItems::Functions(functions) => {
                let len = functions.count();
                for function in functions {
                    self.declared.insert(function?);
                }
                (len, RefType::FUNC)
            }
            ElementItems::Expressions(ty, expressions) => {
                let len = expressions.count();
                for expression in expressions {
                    let expression = expression?;
                    self.declare(&expression)?;
                    makes_mutable |= self.makes_mutable(&expression)?;
                }
                (len, ty)
            }
        };
        self.elements.push(ElementSegment {
            mode,
            len,
            ty,
            makes_mutable,
            range: segment.range,
        });
        Ok(())
    }

    /// A `ref.func` in a constant expression declares its function for the code section.
    fn declare(&mut self, expr: &ConstExpr<'a>) -> Result<(), BinaryReaderError> {
        for operator in expr.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.declared.insert(function_index);
            }
        }
        Ok(())
    }

    /// Whether a constant expression makes an object that can be changed, as far as can be told.
    /// What it gets from a global is looked at in that global.
    fn makes_mutable(&self, expr: &ConstExpr<'a>) -> Result<bool, BinaryReaderError> {
        for operator in expr.get_operators_reader() {
            let makes_mutable = match operator? {
                Operator::StructNew {
                    struct_type_index: ty,
                }
                | Operator::StructNewDefault {
                    struct_type_index: ty,
                }
                | Operator::ArrayNew {
                    array_type_index: ty,
                }
                | Operator::ArrayNewDefault {
                    array_type_index: ty,
                }
                | Operator::ArrayNewFixed {
                    array_type_index: ty,
                    ..
                } => self.object_type(ty).is_none_or(|ty| ty.is_mutable),
                Operator::I32Const { .. }
                | Operator::I64Const { .. }
                | Operator::F32Const { .. }
                | Operator::F64Const { .. }
                | Operator::V128Const { .. }
                | Operator::I32Add
                | Operator::I32Sub
                | Operator::I32Mul
                | Operator::I64Add
                | Operator::I64Sub
                | Operator::I64Mul
                | Operator::GlobalGet { .. }
                | Operator::RefNull { .. }
                | Operator::RefFunc { .. }
                | Operator::RefI31
                | Operator::AnyConvertExtern
                | Operator::ExternConvertAny
                | Operator::End => false,
                _ => true,
            };
            if makes_mutable {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
