//! Objects of the garbage-collected heap that are there before any code runs. The output's own
//! instantiation makes them again, so they need not be written where they are what they were.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{OBJECT, State};
use crate::error::Error;
use crate::value::{Reference, Value};

/// What an object holds.
#[derive(Clone, Debug)]
pub struct Object {
    /// Whether it is an array; else it is a struct.
    pub is_array: bool,
    /// Its elements or fields.
    pub values: Vec<Value>,
}

/// The most elements and fields that are kept to be compared, of 32 bytes each.
const MAX_VALUES: usize = 4 << 20;

/// As how many values an object counts besides: it is known by its handle in several places, which
/// takes some 800 bytes.
const OBJECT_VALUES: usize = 24;

/// The objects of an instance as they were, by their handles.
#[derive(Default)]
pub struct Objects {
    held: HashMap<u32, Object>,
    values: usize,
    is_full: bool,
}

impl Objects {
    /// Reads an object, if the value is one, and all that can be reached from it.
    pub fn read(&mut self, state: &mut dyn State, root: Value) -> Result<(), Error> {
        let mut next: Vec<u32> = handle(root).into_iter().collect();
        while let Some(number) = next.pop() {
            if self.held.contains_key(&number) {
                continue;
            }
            let room = MAX_VALUES.checked_sub(self.values + OBJECT_VALUES);
            let object = match room {
                Some(room) => state.object(number, room)?,
                None => None,
            };
            let Some(object) = object else {
                self.is_full = true;
                continue;
            };
            self.values += OBJECT_VALUES + object.values.len();
            next.extend(object.values.iter().copied().filter_map(handle));
            self.held.insert(number, object);
        }
        Ok(())
    }

    /// Compares objects with what they are now.
    pub fn comparison(&self) -> Comparison<'_> {
        Comparison {
            objects: self,
            from: HashMap::new(),
        }
    }
}

/// The number of an object.
fn handle(value: Value) -> Option<u32> {
    match value {
        Value::Ref(Reference::Handle(number)) => Some(number),
        _ => None,
    }
}

/// A comparison of objects with what they are now, each of them once.
pub struct Comparison<'o> {
    objects: &'o Objects,
    /// The objects that were looked at, and in which place of which other one each was found.
    from: HashMap<u32, Option<(u32, usize)>>,
}

impl Comparison<'_> {
    /// What is to be said against a place that holds this value now, for people: `None` if the
    /// value is no object, or it and all that can be reached from it is what it was.
    pub fn complaint(
        &mut self,
        state: &mut dyn State,
        root: Value,
    ) -> Result<Option<String>, Error> {
        let mut next = Vec::new();
        if let Some(number) = handle(root) {
            if !self.objects.held.contains_key(&number) {
                return Ok(Some(match self.objects.is_full {
                    true => {
                        format!("{OBJECT} that was not compared, as there are more than can be")
                    }
                    false => format!("{OBJECT} that was not there from the start"),
                }));
            }
            if let Entry::Vacant(entry) = self.from.entry(number) {
                entry.insert(None);
                next.push(number);
            }
        }
        while let Some(number) = next.pop() {
            let Some(before) = self.objects.held.get(&number) else {
                return Ok(Some(format!(
                    "{OBJECT} that leads to more of them than can be compared"
                )));
            };
            let now = state.object(number, before.values.len())?;
            let now = now.ok_or_else(|| Error::internal("an object has grown"))?;
            for (place, (before, now)) in before.values.iter().zip(&now.values).enumerate() {
                let complaint = match (before == now, super::untold(*now)) {
                    (false, _) => super::CHANGED,
                    (true, Some(what)) => what,
                    (true, None) => {
                        if let Some(child) = handle(*now)
                            && let Entry::Vacant(entry) = self.from.entry(child)
                        {
                            entry.insert(Some((number, place)));
                            next.push(child);
                        }
                        continue;
                    }
                };
                let path = self.path(number, place);
                return Ok(Some(format!("{OBJECT} of which {path} {complaint}")));
            }
        }
        Ok(None)
    }

    /// Where a place of an object is, from the place that leads to it: `field 1 of element 20`.
    fn path(&self, object: u32, place: usize) -> String {
        /// Longer ways are cut short.
        const STEPS: usize = 4;
        let mut steps = Vec::new();
        let mut at = Some((object, place));
        while let Some((object, place)) = at {
            let is_array = self.objects.held[&object].is_array;
            let kind = if is_array { "element" } else { "field" };
            steps.push(format!("{kind} {place}"));
            at = self.from[&object];
        }
        let more = steps.len().saturating_sub(STEPS);
        steps.truncate(STEPS);
        if more > 0 {
            steps.push(format!("an object {more} steps away"));
        }
        steps.join(" of ")
    }
}
