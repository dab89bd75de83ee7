//! Objects and exceptions of which handles were given out, and may come back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use wasmtime::{AnyRef, AsContext, AsContextMut, ExnRef, ExternRef, OwnedRooted, RootScope, Val};

use super::StoreData;
use super::values::from_val;
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};

/// What handles stand for, by their numbers. It lives as long as the store.
#[derive(Default)]
pub struct Objects {
    kept: Vec<Kept>,
    /// The numbers of those with the same hash.
    numbers: HashMap<u64, Vec<u32>>,
}

/// An object or an exception.
#[derive(Clone)]
enum Kept {
    /// Also one that was seen as an `externref`: it is the same object.
    Any(OwnedRooted<AnyRef>),
    Exception(OwnedRooted<ExnRef>),
}

impl Kept {
    fn new(mut store: impl AsContextMut, value: &Val) -> Option<Kept> {
        let kept = match value {
            Val::AnyRef(object) => object.as_ref()?.to_owned_rooted(store).map(Kept::Any),
            Val::ExternRef(reference) => AnyRef::convert_extern(&mut store, (*reference)?)
                .and_then(|object| object.to_owned_rooted(store))
                .map(Kept::Any),
            Val::ExnRef(exception) => {
                let exception = exception.as_ref()?;
                exception.to_owned_rooted(store).map(Kept::Exception)
            }
            _ => return None,
        };
        // Only a reference that is no longer rooted, or of another store, would be an error.
        kept.ok()
    }

    fn hash(&self, store: impl AsContext) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Kept::Any(object) => object.ref_hash(store, &mut hasher),
            Kept::Exception(exception) => exception.ref_hash(store, &mut hasher),
        }
        hasher.finish()
    }

    fn is(&self, store: impl AsContext, other: &Kept) -> bool {
        let same = match (self, other) {
            (Kept::Any(one), Kept::Any(other)) => OwnedRooted::ref_eq(store, one, other),
            (Kept::Exception(one), Kept::Exception(other)) => {
                OwnedRooted::ref_eq(store, one, other)
            }
            _ => Ok(false),
        };
        same.unwrap_or(false)
    }
}

/// The number of an object or exception for somebody who may give it back: always the same one.
/// `None` for any other value.
pub fn keep(mut store: impl AsContextMut<Data = StoreData>, value: &Val) -> Option<u32> {
    let object = Kept::new(&mut store, value)?;
    let hash = object.hash(&store);
    let objects = &store.as_context().data().objects;
    let mut known = objects.numbers.get(&hash).into_iter().flatten().copied();
    let known = known.find(|number| objects.kept[*number as usize].is(&store, &object));
    if known.is_some() {
        return known;
    }
    let mut store = store.as_context_mut();
    let objects = &mut store.data_mut().objects;
    let number = u32::try_from(objects.kept.len()).ok()?;
    objects.kept.push(object);
    objects.numbers.entry(hash).or_default().push(number);
    Some(number)
}

/// What a handle stands for, as an `externref` or as what it is. `None` where that is nothing.
pub fn kept(
    mut store: impl AsContextMut<Data = StoreData>,
    number: u32,
    as_extern: bool,
) -> Option<Val> {
    let kept = store.as_context().data().objects.kept.get(number as usize);
    Some(match kept?.clone() {
        Kept::Any(object) if as_extern => {
            let object = object.to_rooted(&mut store);
            ExternRef::convert_any(&mut store, object).ok()?.into()
        }
        Kept::Any(object) => object.to_rooted(&mut store).into(),
        Kept::Exception(exception) => exception.to_rooted(&mut store).into(),
    })
}

/// A value of the state, in which objects are told from each other by handles.
pub fn tell(mut store: impl AsContextMut<Data = StoreData>, value: &Val) -> Value {
    match from_val(&mut store, value) {
        Value::Ref(Reference::Object) => Value::Ref(match keep(store, value) {
            Some(number) => Reference::Handle(number),
            None => Reference::Object,
        }),
        other => other,
    }
}

/// What the object of a handle holds; `None` if that is more than `most` values.
pub fn read(
    mut store: impl AsContextMut<Data = StoreData>,
    number: u32,
    most: usize,
) -> wasmtime::Result<Option<Object>> {
    let mut store = RootScope::new(&mut store);
    let Some(Val::AnyRef(Some(object))) = kept(&mut store, number, false) else {
        return Err(wasmtime::Error::msg("no object has this handle"));
    };
    let (is_array, values): (_, Vec<Val>) = match object.as_array(&store)? {
        Some(array) if array.len(&store)? as usize > most => return Ok(None),
        Some(array) => (true, array.elems(&mut store)?.collect()),
        None => {
            let object = object.unwrap_struct(&store)?;
            (false, object.fields(&mut store)?.collect())
        }
    };
    if values.len() > most {
        return Ok(None);
    }
    let values = values.iter().map(|value| tell(&mut store, value)).collect();
    Ok(Some(Object { is_array, values }))
}
