//! Random cases: what is run, what is said when one fails, and how it is replayed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_addr::Flow;
use sluice_model::{Kind, Object, ObjectDelta, ObjectKey, World};

use crate::possible::is_possible;
use crate::shrink::{Case, shrunk};
use crate::{Seeds, deltas_of};

/// How long a case that fails is made smaller.
const LIMIT: Duration = Duration::from_secs(30);

/// Objects, and connections between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    /// Every object.
    pub objects: Vec<Object>,
    /// What is asked.
    pub flows: Vec<Flow>,
}

impl Situation {
    /// These connections in this world.
    pub fn new(world: &World, flows: impl IntoIterator<Item = Flow>) -> Self {
        Situation { objects: world.objects(), flows: flows.into_iter().collect() }
    }

    /// The world of the objects.
    pub fn world(&self) -> World {
        world_of(&self.objects)
    }
}

impl Case for Situation {
    fn is_possible(&self) -> bool {
        are_possible(&self.objects)
    }
}

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// The object is now this.
    Upsert(Object),
    /// The object is gone.
    Delete(ObjectKey),
    /// A full list of this kind follows.
    ListBegins(Kind),
    /// The list is complete: what it did not name is gone.
    ListEnds(Kind),
    /// What happened so far is worked in.
    Flush,
    /// What happened so far is worked in, and looked at in full.
    Look,
}

impl From<ObjectDelta> for Step {
    fn from(delta: ObjectDelta) -> Self {
        match delta {
            ObjectDelta::Upsert(object) => Step::Upsert(object),
            ObjectDelta::Delete(key) => Step::Delete(key),
        }
    }
}

/// What happened, one step after the other, as seen by one node or by the whole cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The node whose part is looked at; all, if there is none.
    pub node: Option<String>,
    /// The steps, from nothing on.
    pub steps: Vec<Step>,
}

impl History {
    /// A history that begins with the objects of a world.
    pub fn from_world(node: Option<&str>, world: &World) -> Self {
        let steps = deltas_of(world).into_iter().map(Step::from).collect();
        History { node: node.map(Into::into), steps }
    }

    /// What happens next, and is looked at.
    pub fn then(&mut self, deltas: impl IntoIterator<Item = ObjectDelta>) {
        self.steps.extend(deltas.into_iter().map(Step::from));
        self.steps.push(Step::Look);
    }

    /// The changes between looks, in order.
    pub fn changes(&self) -> Vec<Vec<ObjectDelta>> {
        let parts = self.steps.split(|step| *step == Step::Look);
        let delta = |step: &Step| match step {
            Step::Upsert(object) => Some(ObjectDelta::Upsert(object.clone())),
            Step::Delete(key) => Some(ObjectDelta::Delete(key.clone())),
            Step::ListBegins(_) | Step::ListEnds(_) | Step::Flush | Step::Look => None,
        };
        parts.map(|steps| steps.iter().filter_map(delta).collect()).collect()
    }
}

impl Case for History {
    fn is_possible(&self) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Upsert(object) => is_possible(object),
            Step::Delete(_) | Step::ListBegins(_) | Step::ListEnds(_) | Step::Flush | Step::Look => true,
        })
    }
}

/// The world that these objects make.
pub fn world_of(objects: &[Object]) -> World {
    let mut world = World::default();
    objects.iter().cloned().for_each(|object| world.apply(ObjectDelta::Upsert(object)));
    world
}

/// Are these objects that one API can hold at one time?
pub fn are_possible(objects: &[Object]) -> bool {
    let keys: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
    keys.len() == objects.len() && objects.iter().all(is_possible)
}

/// Looks at a random case: `law` panics if something does not hold.
///
/// # Panics
/// If `law` does: with the smallest case that still panics at the same line, as the text of a fixture for [`replay`].
pub fn hold<C: Case, R>(test: &str, seed: u64, case: &C, law: impl Fn(&C) -> R) -> R {
    let found = match caught(|| law(case)) {
        Ok(result) => return result,
        Err(found) => found,
    };
    let fails = |case: &C| caught(|| law(case)).is_err_and(|again| again.place == found.place);
    let replay = Seeds::replay(seed);
    if !fails(case) {
        panic!("{replay}: {}\nIt does not fail when it is run again.", found.message);
    }
    let small = shrunk(case, LIMIT, fails);
    let message = caught(|| law(&small)).err().map(|failure| failure.message).unwrap_or_default();
    let text = text_of(&small);
    panic!(
        "{replay}: {}\nMade smaller: {message}\nThe same as a fixture, tests/fixtures/{test}/NAME.json:\n{text}\n",
        found.message
    );
}

/// A case as JSON, without fields that say nothing where it reads back without them.
fn text_of<C: Case>(case: &C) -> String {
    let whole = serde_json::to_value(case).expect("a case has a JSON form");
    let mut short = whole.clone();
    leave_out_nulls(&mut short);
    let again = C::deserialize(&short).ok().and_then(|case| serde_json::to_value(case).ok());
    let text = if again.as_ref() == Some(&whole) { short } else { whole };
    serde_json::to_string_pretty(&text).expect("JSON has a text")
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(leave_out_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Looks at the cases that are kept in `tests/fixtures/TEST` of the crate at `root`; how many there are.
///
/// # Panics
/// If one does not hold, or there is none.
pub fn replay<C: Case, R>(root: &str, test: &str, law: impl Fn(&C) -> R) -> usize {
    let folder = Path::new(root).join("tests/fixtures").join(test);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    for file in &files {
        let text = fs::read_to_string(file).expect("a fixture can be read");
        let case: C = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(case.is_possible(), "{}: no API would hold this", file.display());
        if let Err(found) = caught(|| law(&case)) {
            panic!("{}: {}", file.display(), found.message);
        }
    }
    assert!(!files.is_empty(), "{}: no fixtures", folder.display());
    files.len()
}

/// A panic that was caught.
struct Failure {
    /// File, line and column: the same for the same kind of failure.
    place: String,
    message: String,
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`; a panic in it prints nothing.
fn caught<R>(body: impl FnOnce() -> R) -> Result<R, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            match IS_QUIET.get() {
                true => drop(PLACE.replace(place)),
                false => before(info),
            }
        }));
    });
    let outer = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    IS_QUIET.set(outer);
    result.map_err(|payload| Failure { place: PLACE.take(), message: message_of(payload) })
}

fn message_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => (*text).to_owned(),
            Err(other) => resume_unwind(other),
        },
    }
}
