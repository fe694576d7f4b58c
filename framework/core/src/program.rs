//! The program: every function, ingress and egress of an app, linked and numbered.
//!
//! Linking finds what does not fit together before anything runs, and replaces names by small
//! integers: [`FunctionId`] counts the functions, [`NameId`] all names. Both follow the order of
//! the names, so they are equal in every process that runs the same program.
//!
//! Invariant: within a frame all names are [`NameId`]s of the table in the claim before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use crate::{
    activity::ErasedActivity,
    ask::Asked,
    context::Resources,
    effect::{Call, Destination},
    egress::{DEAD_LETTERS, EgressDeclaration},
    envelope::{ANSWER, enveloped, is_made},
    error::{DecodeError, LinkError},
    function::{Access, Function, TargetDeclaration},
    host::{ErasedHost, Handlers, Host},
    key::{self, Key, KeyKind},
    limits::{NAME_BYTES_MAX, NAMES_MAX},
    message::Encoding,
    state::Field,
};

/// The number of a function in its program.
pub type FunctionId = u16;
/// The number of a name in its program.
pub type NameId = u16;
/// The number of a stage in its program; stages are numbered in the order of the graph of sends.
pub type StageId = u16;

/// A handler of a message.
#[derive(Debug, Clone, Copy)]
pub struct MessageHandler {
    /// The message's stable name.
    pub message: &'static str,
    /// Whether messages wait for the watermark.
    pub in_event_time_order: bool,
    /// Whether it can change anything.
    pub access: Access,
    /// How the message's bytes are to be read.
    pub encoding: Encoding,
    /// How the bytes of its answer are to be read.
    pub answer_encoding: Encoding,
    /// Whether bytes are such a message.
    pub check: fn(&[u8]) -> Result<(), DecodeError>,
    /// What JSON of the message, of its answer and of its rejection looks like; see [`crate::schema`].
    pub schemas: fn() -> [serde_json::Value; 3],
}

/// A function before linking.
#[derive(Clone)]
pub struct FunctionSpec {
    /// Its stable name.
    pub name: &'static str,
    /// Its handlers of messages.
    pub messages: Vec<MessageHandler>,
    /// The names of its timers' payloads.
    pub timers: Vec<&'static str>,
    /// Where the replies that it takes come from.
    pub replies: Vec<Asked>,
    /// What it sends to.
    pub sends: &'static [TargetDeclaration],
    /// What it emits to.
    pub emits: Vec<EgressDeclaration>,
    /// The fields of its state.
    pub fields: &'static [Field],
    /// The version of its state.
    pub version: u32,
    /// How its keys are written as text.
    pub key: KeyKind,
    /// The bytes of the key that is written as a text.
    pub key_from_text: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    host: fn(Arc<Links>) -> Box<dyn ErasedHost>,
}

impl FunctionSpec {
    /// The specification of `F`.
    #[must_use]
    pub fn of<F: Function>() -> Self {
        let handlers = Handlers::<F>::new();
        Self {
            name: F::NAME,
            messages: handlers.messages(),
            timers: handlers.timers(),
            replies: handlers.replies(),
            sends: F::SENDS,
            emits: F::emits(),
            fields: F::FIELDS,
            version: F::VERSION,
            key: <F::Key as Key>::KIND,
            key_from_text: key::from_text::<F::Key>,
            host: |links| Box::new(Host::<F>::new(links)),
        }
    }
}

impl fmt::Debug for FunctionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionSpec({})", self.name)
    }
}

/// An ingress before linking.
#[derive(Debug, Clone)]
pub struct IngressSpec {
    /// Its stable name.
    pub name: &'static str,
    /// The names of the functions its router may send to.
    pub targets: Vec<TargetDeclaration>,
    /// How far behind the newest event time an event may come, in milliseconds.
    pub lateness_ms: i64,
}

/// All parts of an app before linking.
#[derive(Debug, Clone, Default)]
pub struct ProgramSpec {
    /// The app's name.
    pub app: String,
    /// Its functions.
    pub functions: Vec<FunctionSpec>,
    /// Its ingresses.
    pub ingresses: Vec<IngressSpec>,
    /// Its egresses, but for the dead letters.
    pub egresses: Vec<EgressDeclaration>,
    /// Its activities.
    pub activities: Vec<ErasedActivity>,
    /// What every handler may read.
    pub resources: Resources,
}

/// A declared target, resolved: what a send needs to know.
#[derive(Debug, Clone)]
pub struct TargetLink {
    pub(crate) name: &'static str,
    /// By the index of the message in the target's (or contract's) declaration.
    pub(crate) plain: Vec<Destination>,
    /// The same for messages in envelopes.
    pub(crate) enveloped: Vec<Destination>,
}

/// What a function's context needs to know, resolved.
#[derive(Debug, Clone)]
pub struct Links {
    pub(crate) name: &'static str,
    pub(crate) function: FunctionId,
    pub(crate) function_name: NameId,
    pub(crate) targets: Vec<TargetLink>,
    /// The timers, and behind them the same in envelopes.
    pub(crate) timers: Vec<NameId>,
    /// The handlers of replies.
    pub(crate) replies: Vec<NameId>,
    pub(crate) resources: Resources,
    egresses: Vec<(usize, &'static str, NameId)>,
}

impl Links {
    /// The number of a declared egress; by the static first, by name for a static that was moved.
    #[inline]
    pub(crate) fn egress(&self, identity: usize, name: &str) -> Option<NameId> {
        let found = self.egresses.iter().find(|egress| egress.0 == identity);
        found.or_else(|| self.egresses.iter().find(|egress| egress.1 == name)).map(|egress| egress.2)
    }

    /// Links of a function alone, for a test of it: targets and egresses are taken as declared.
    pub(crate) fn alone<F: Function>(resources: Resources) -> Self {
        let spec = FunctionSpec::of::<F>();
        let names = Names::of(std::slice::from_ref(&spec), &[], &spec.emits);
        let targets =
            spec.sends.iter().map(|target| names.link(target, 0, &vec![0; target.messages.len()], 0)).collect();
        names.links(&spec, 0, targets, resources)
    }

    pub(crate) fn target_named(&self, name: &str) -> Option<&TargetLink> {
        self.targets.iter().find(|target| target.name == name)
    }
}

/// A function of a linked program.
#[derive(Debug)]
pub struct LinkedFunction {
    /// What it was linked from.
    pub spec: FunctionSpec,
    /// Its name.
    pub name: NameId,
    /// The stage it belongs to.
    pub stage: StageId,
    pub(crate) links: Arc<Links>,
    handlers: Vec<LinkedHandler>,
}

/// What a handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerKind {
    /// A message, by its place in [`FunctionSpec::messages`].
    Message(u16),
    /// The same message in an envelope.
    Enveloped(u16),
    /// A reply, by its place in [`FunctionSpec::replies`].
    Reply(u16),
    /// An answer that was given later than its call; the shard itself takes it.
    Answer,
}

#[derive(Debug, Clone, Copy)]
struct LinkedHandler {
    name: NameId,
    kind: HandlerKind,
    in_event_time_order: bool,
}

impl LinkedFunction {
    /// The name of a message handler.
    #[must_use]
    pub fn message_name(&self, handler: u16) -> NameId {
        self.handlers[usize::from(handler)].name
    }

    /// What a handler takes.
    #[must_use]
    pub fn handler_kind(&self, handler: u16) -> HandlerKind {
        self.handlers[usize::from(handler)].kind
    }

    /// Whether what a handler takes waits for the watermark.
    #[must_use]
    pub fn is_in_event_time_order(&self, handler: u16) -> bool {
        self.handlers[usize::from(handler)].in_event_time_order
    }

    /// The handler that takes answers that were given later; it is the last one.
    pub(crate) fn answer_handler(&self) -> u16 {
        self.handlers.len() as u16 - 1
    }

    /// The name of a timer handler.
    #[must_use]
    pub fn timer_name(&self, handler: u16) -> NameId {
        self.links.timers[usize::from(handler)]
    }
}

/// Functions whose event time moves together: one function, or a cycle of them.
#[derive(Debug, Clone, Default)]
pub struct Stage {
    /// Its functions.
    pub functions: Vec<FunctionId>,
    /// Whether a message of it can lead to another message of it.
    pub is_cycle: bool,
    /// The stages before it that send to it.
    pub senders: Vec<StageId>,
    /// The ingresses, by place in [`Program::ingresses`], that send to it.
    pub ingresses: Vec<usize>,
    /// The ingresses whose records can lead to a message of it, by any way.
    pub sources: Vec<usize>,
    /// Whether it sends to a later stage.
    pub has_receivers: bool,
}

/// A linked app.
#[derive(Debug)]
pub struct Program {
    /// The app's name.
    pub app: String,
    /// All names, sorted; a [`NameId`] is a place here.
    pub names: Vec<String>,
    /// The functions, by name; a [`FunctionId`] is a place here.
    pub functions: Vec<LinkedFunction>,
    /// The stages, senders before receivers.
    pub stages: Vec<Stage>,
    /// The ingresses.
    pub ingresses: Vec<IngressSpec>,
    /// The egresses by name, the dead letters included.
    pub egresses: BTreeMap<NameId, Encoding>,
    /// The egress of dead letters.
    pub dead_letters: NameId,
    /// The activities.
    pub activities: Vec<ErasedActivity>,
    /// What every handler and activity may read.
    pub resources: Resources,
    function_of_name: Vec<Option<FunctionId>>,
    ingress_names: Vec<NameId>,
    has_ordered_handlers: bool,
}

impl Program {
    /// Links the parts of an app.
    ///
    /// # Errors
    /// Every problem found, each with its fix: names that are doubled or not allowed, targets and
    /// egresses that are not registered, messages that a target does not handle.
    pub fn link(spec: ProgramSpec) -> Result<Arc<Self>, LinkError> {
        let mut functions = spec.functions;
        functions.sort_by_key(|function| function.name);
        let problems = problems(&functions, &spec.ingresses, &spec.egresses, &spec.activities);
        if !problems.is_empty() {
            return Err(LinkError(problems));
        }
        let names = Names::of(&functions, &spec.ingresses, &spec.egresses);
        let (stages, stage_of) = stages(&functions, &spec.ingresses);
        let linked = (0..functions.len())
            .map(|at| names.function(&functions, at, stage_of[at], &spec.resources))
            .collect::<Vec<_>>();
        let mut function_of_name = vec![None; names.0.len()];
        for (id, function) in linked.iter().enumerate() {
            function_of_name[usize::from(function.name)] = Some(id as FunctionId);
        }
        let dead_letters = names.id(DEAD_LETTERS);
        let mut egresses: BTreeMap<_, _> =
            spec.egresses.iter().map(|egress| (names.id(egress.name), egress.encoding)).collect();
        egresses.insert(dead_letters, Encoding::Json);
        let ingress_names = spec.ingresses.iter().map(|ingress| names.id(ingress.name)).collect();
        let mut handlers = functions.iter().flat_map(|function| &function.messages);
        let has_ordered_handlers = handlers.any(|handler| handler.in_event_time_order);
        Ok(Arc::new(Self {
            ingress_names,
            has_ordered_handlers,
            app: spec.app,
            names: names.0,
            functions: linked,
            stages,
            ingresses: spec.ingresses,
            egresses,
            dead_letters,
            activities: spec.activities,
            resources: spec.resources,
            function_of_name,
        }))
    }

    /// The name with this number.
    #[must_use]
    pub fn name(&self, id: NameId) -> &str {
        &self.names[usize::from(id)]
    }

    /// The function with this name.
    #[must_use]
    pub fn function_named(&self, name: NameId) -> Option<FunctionId> {
        self.function_of_name.get(usize::from(name)).copied().flatten()
    }

    /// The function that is called `name`.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<FunctionId> {
        self.function_named(self.name_id(name)?)
    }

    fn name_id(&self, name: &str) -> Option<NameId> {
        let place = self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        NameId::try_from(place).ok()
    }

    /// The handler that is called `name` on disk, of a function.
    pub(crate) fn destination(&self, function: &str, name: &str) -> Option<Destination> {
        let (function, name) = (self.function(function)?, self.name_id(name)?);
        let handler = self.message_handler(function, name)?;
        Some(Destination { function, handler, names: [self.functions[usize::from(function)].name, name] })
    }

    /// A fingerprint of what its numbers stand for: programs with the same one mean the same functions, handlers,
    /// stages and ingresses by the same numbers.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let mut names: Vec<&str> = Vec::new();
        for function in &self.functions {
            names.extend(["function", function.spec.name]);
            names.extend(function.spec.messages.iter().map(|handler| handler.message));
            names.push("timers");
            names.extend(function.spec.timers.iter());
        }
        for stage in &self.stages {
            names.push("stage");
            names.extend(stage.functions.iter().map(|function| self.functions[usize::from(*function)].spec.name));
        }
        names.push("ingresses");
        names.extend(self.ingresses.iter().map(|ingress| ingress.name));
        names.iter().fold(crc32c::crc32c(self.app.as_bytes()), |sum, name| {
            crc32c::crc32c_append(crc32c::crc32c_append(sum, name.as_bytes()), b"\n")
        })
    }

    /// The activity with this name.
    #[must_use]
    pub fn activity(&self, name: &str) -> Option<&ErasedActivity> {
        self.activities.iter().find(|activity| activity.name == name)
    }

    /// The handler of `message` in the function `function`, both by name.
    #[must_use]
    pub fn message_handler(&self, function: FunctionId, message: NameId) -> Option<u16> {
        let handlers = &self.functions[usize::from(function)].handlers;
        let found = handlers.iter().position(|handler| handler.name == message);
        found.and_then(|place| u16::try_from(place).ok())
    }

    /// The timer handler with payload `payload` in the function `function`.
    #[must_use]
    pub fn timer_handler(&self, function: FunctionId, payload: NameId) -> Option<u16> {
        let timers = &self.functions[usize::from(function)].links.timers;
        let found = timers.iter().position(|known| *known == payload);
        found.and_then(|place| u16::try_from(place).ok())
    }

    /// The handler of a function for messages, or for timers, of this name.
    pub(crate) fn handler_of(&self, is_timer: bool, function: FunctionId, name: NameId) -> Option<u16> {
        if is_timer { self.timer_handler(function, name) } else { self.message_handler(function, name) }
    }

    /// The names of the function and the message or timer of a call.
    pub(crate) fn names_of(&self, call: &Call) -> (NameId, NameId) {
        let function = &self.functions[usize::from(call.function)];
        let message =
            if call.is_timer { function.timer_name(call.handler) } else { function.message_name(call.handler) };
        (function.name, message)
    }

    /// Resolves a router's target by name: its function, and its handlers by the declaration's order.
    #[must_use]
    pub fn route(&self, target: &TargetDeclaration) -> Option<Route> {
        let function = self.function(target.name)?;
        let messages = &self.functions[usize::from(function)].spec.messages;
        let handlers = target.messages.iter().map(|wanted| {
            let place = messages.iter().position(|handler| handler.message == *wanted)?;
            u16::try_from(place).ok()
        });
        Some(Route { function, handlers: handlers.collect::<Option<_>>()? })
    }

    pub(crate) fn hosts(&self) -> Vec<Box<dyn ErasedHost>> {
        self.functions.iter().map(|function| (function.spec.host)(Arc::clone(&function.links))).collect()
    }

    /// The name of an ingress, by its place in [`Self::ingresses`].
    #[must_use]
    pub fn ingress_name(&self, ingress: usize) -> NameId {
        self.ingress_names[ingress]
    }

    /// Whether any handler takes its messages in event-time order.
    #[must_use]
    pub fn has_ordered_handlers(&self) -> bool {
        self.has_ordered_handlers
    }

    /// Whether any function sends to another one or itself.
    #[must_use]
    pub fn has_sends(&self) -> bool {
        self.functions.iter().any(|function| !function.spec.sends.is_empty())
    }

    /// Whether shards send each other anything: what functions send, and, where processes share the log,
    /// what was read for others.
    #[must_use]
    pub fn has_mail(&self, is_log_shared: bool) -> bool {
        self.has_sends() || is_log_shared && !self.ingresses.is_empty()
    }

    /// Whether any stage is a cycle.
    #[must_use]
    pub fn has_cycles(&self) -> bool {
        self.stages.iter().any(|stage| stage.is_cycle)
    }
}

/// Where a router's messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The function.
    pub function: FunctionId,
    /// Its handlers, in the order of the target's declaration.
    pub handlers: Vec<u16>,
}

/// The sorted table of all names.
struct Names(Vec<String>);

impl Names {
    fn of(functions: &[FunctionSpec], ingresses: &[IngressSpec], egresses: &[EgressDeclaration]) -> Self {
        let mut names = BTreeSet::from([DEAD_LETTERS.to_owned()]);
        let mut add = |name: &str| names.insert(name.to_owned());
        for function in functions {
            add(function.name);
            add(ANSWER);
            let messages = function.messages.iter().map(|handler| handler.message);
            for message in messages.chain(function.timers.iter().copied()) {
                add(message);
                add(&enveloped(message));
            }
            function.replies.iter().for_each(|asked| _ = add(&asked.reply_name()));
            for target in function.sends {
                add(target.name);
                for message in target.messages {
                    add(message);
                    add(&enveloped(message));
                }
            }
        }
        ingresses.iter().for_each(|ingress| _ = add(ingress.name));
        egresses.iter().for_each(|egress| _ = add(egress.name));
        Self(names.into_iter().collect())
    }

    fn id(&self, name: &str) -> NameId {
        let place = self.0.binary_search_by(|known| known.as_str().cmp(name));
        // Linking has checked that there are at most NAMES_MAX names.
        place.expect("every name of the program is in its table") as NameId
    }

    fn function(&self, all: &[FunctionSpec], at: usize, stage: StageId, resources: &Resources) -> LinkedFunction {
        let spec = all[at].clone();
        let targets = spec.sends.iter().map(|target| {
            let function = all.iter().position(|function| function.name == target.name);
            let function = function.expect("linking has checked that targets are registered");
            let handlers = target.messages.iter().map(|message| {
                let place = all[function].messages.iter().position(|handler| handler.message == *message);
                place.expect("linking has checked that targets handle what they declare") as u16
            });
            let handlers: Vec<u16> = handlers.collect();
            self.link(target, function as FunctionId, &handlers, all[function].messages.len())
        });
        let links = self.links(&spec, at as FunctionId, targets.collect(), resources.clone());
        LinkedFunction { name: self.id(spec.name), stage, handlers: self.handlers(&spec), links: Arc::new(links), spec }
    }

    /// The handlers of a function: messages, the same in envelopes, replies, and answers given later.
    fn handlers(&self, spec: &FunctionSpec) -> Vec<LinkedHandler> {
        let messages = || (0..).zip(&spec.messages);
        let plain = messages().map(|(place, handler)| LinkedHandler {
            name: self.id(handler.message),
            kind: HandlerKind::Message(place),
            in_event_time_order: handler.in_event_time_order,
        });
        let in_envelopes = messages().map(|(place, handler)| LinkedHandler {
            name: self.id(&enveloped(handler.message)),
            kind: HandlerKind::Enveloped(place),
            in_event_time_order: handler.in_event_time_order,
        });
        let others = (0..).zip(&spec.replies).map(|(place, asked)| (asked.reply_name(), HandlerKind::Reply(place)));
        let others = others.chain([(ANSWER.to_owned(), HandlerKind::Answer)]);
        let others =
            others.map(|(name, kind)| LinkedHandler { name: self.id(&name), kind, in_event_time_order: false });
        plain.chain(in_envelopes).chain(others).collect()
    }

    /// `count` is how many messages the function of the target takes.
    fn link(&self, target: &TargetDeclaration, function: FunctionId, handlers: &[u16], count: usize) -> TargetLink {
        let function_name = self.id(target.name);
        let destination =
            |(handler, name): (u16, &str)| Destination { function, handler, names: [function_name, self.id(name)] };
        let all = || handlers.iter().zip(target.messages);
        TargetLink {
            name: target.name,
            plain: all().map(|(handler, message)| destination((*handler, message))).collect(),
            enveloped: all()
                .map(|(handler, message)| destination((handler + count as u16, &enveloped(message))))
                .collect(),
        }
    }

    fn links(
        &self,
        spec: &FunctionSpec,
        function: FunctionId,
        targets: Vec<TargetLink>,
        resources: Resources,
    ) -> Links {
        Links {
            name: spec.name,
            function,
            function_name: self.id(spec.name),
            targets,
            timers: spec
                .timers
                .iter()
                .map(|timer| self.id(timer))
                .chain(spec.timers.iter().map(|timer| self.id(&enveloped(timer))))
                .collect(),
            replies: spec.replies.iter().map(|asked| self.id(&asked.reply_name())).collect(),
            resources,
            egresses: spec.emits.iter().map(|egress| (egress.identity, egress.name, self.id(egress.name))).collect(),
        }
    }
}

fn problems(
    functions: &[FunctionSpec],
    ingresses: &[IngressSpec],
    egresses: &[EgressDeclaration],
    activities: &[ErasedActivity],
) -> Vec<String> {
    let mut problems = Vec::new();
    for pair in functions.windows(2).filter(|pair| pair[0].name == pair[1].name) {
        problems.push(format!("the function `{}` is registered twice: remove one of the two", pair[0].name));
    }
    let mut seen = BTreeSet::from([DEAD_LETTERS]);
    for name in ingresses.iter().map(|ingress| ingress.name).chain(egresses.iter().map(|egress| egress.name)) {
        if !seen.insert(name) {
            problems.push(format!("the name `{name}` is used by two ingresses or egresses: rename one of them"));
        }
    }
    for function in functions {
        for target in function.sends {
            check_target(&format!("`{}` sends to", function.name), target, functions, &mut problems);
        }
        check_replies(function, activities, &mut problems);
        for egress in &function.emits {
            if !egresses.iter().any(|known| known.name == egress.name) {
                problems.push(format!(
                    "`{}` emits to `{}`, which the app does not register: add `.egress(&..)` for it",
                    function.name, egress.name
                ));
            }
        }
    }
    for ingress in ingresses {
        for target in &ingress.targets {
            check_target(&format!("the ingress `{}` sends to", ingress.name), target, functions, &mut problems);
        }
    }
    check_activities(activities, &mut problems);
    check_names(functions, ingresses, egresses, &mut problems);
    problems
}

/// Whom a function asks, it also sends to; and what it calls, the app has.
fn check_replies(function: &FunctionSpec, activities: &[ErasedActivity], problems: &mut Vec<String>) {
    for asked in &function.replies {
        match asked {
            Asked::Function(target, message) => {
                if !function.sends.iter().any(|declared| declared.name == *target) {
                    problems.push(format!(
                        "`{}` takes replies of `{target}` to `{message}` but does not declare that it sends to it: add \
                         it to `sends(..)` of its `#[function]`",
                        function.name
                    ));
                }
            }
            Asked::Activity(name) => {
                if !activities.iter().any(|activity| activity.name == *name) {
                    problems.push(format!(
                        "`{}` calls the activity `{name}`, which the app does not register: add `.activity(..)` for it",
                        function.name
                    ));
                }
            }
        }
    }
}

fn check_activities(activities: &[ErasedActivity], problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for activity in activities.iter().filter(|activity| !seen.insert(activity.name)) {
        problems.push(format!("the activity `{}` is registered twice: remove one of the two", activity.name));
    }
}

fn check_target(who: &str, target: &TargetDeclaration, functions: &[FunctionSpec], problems: &mut Vec<String>) {
    let Some(function) = functions.iter().find(|function| function.name == target.name) else {
        problems
            .push(format!("{who} `{}`, which the app does not register: add `.function::<..>()` for it", target.name));
        return;
    };
    for message in target.messages {
        if !function.messages.iter().any(|handler| handler.message == *message) {
            problems
                .push(format!("{who} `{}`, which has no handler for `{message}`: add an `#[on]` handler", target.name));
        }
    }
}

fn check_names(
    functions: &[FunctionSpec],
    ingresses: &[IngressSpec],
    egresses: &[EgressDeclaration],
    problems: &mut Vec<String>,
) {
    let names = Names::of(functions, ingresses, egresses).0;
    if names.len() > NAMES_MAX {
        problems
            .push(format!("the app has {} names; the limit is {NAMES_MAX}: split it into several apps", names.len()));
    }
    let given = names.iter().filter(|name| !is_made(name));
    for name in given.filter(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        problems.push(format!("the name {name:?} has {} bytes: a name has 1 to {NAME_BYTES_MAX}", name.len()));
    }
}

/// Groups the functions into stages (the strongly connected parts of the graph of sends) and
/// orders them senders first; Tarjan 1972, whose parts come out receivers first.
fn stages(functions: &[FunctionSpec], ingresses: &[IngressSpec]) -> (Vec<Stage>, Vec<StageId>) {
    let targets = |at: usize| functions[at].sends.iter().filter_map(|target| index_of(functions, target.name));
    let mut edges: Vec<Vec<usize>> = (0..functions.len()).map(|at| targets(at).collect()).collect();
    for (asker, function) in functions.iter().enumerate() {
        // Who is asked sends a reply.
        for asked in &function.replies {
            if let Asked::Function(target, _) = asked
                && let Some(target) = index_of(functions, target)
                && !edges[target].contains(&asker)
            {
                edges[target].push(asker);
            }
        }
    }
    let mut parts = Tarjan::new(&edges).run();
    parts.reverse();
    let mut stage_of = vec![0; functions.len()];
    for (stage, part) in parts.iter().enumerate() {
        part.iter().for_each(|function| stage_of[*function] = stage as StageId);
    }
    let mut stages: Vec<Stage> = parts
        .iter()
        .map(|part| Stage {
            functions: part.iter().map(|function| *function as FunctionId).collect(),
            is_cycle: part.len() > 1 || edges[part[0]].contains(&part[0]),
            ..Stage::default()
        })
        .collect();
    for (from, to) in edges.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |to| (from, *to))) {
        let (from, to) = (stage_of[from], stage_of[to]);
        if from != to {
            stages[usize::from(from)].has_receivers = true;
            insert_sorted(&mut stages[usize::from(to)].senders, from);
        }
    }
    for (ingress, spec) in ingresses.iter().enumerate() {
        for function in spec.targets.iter().filter_map(|target| index_of(functions, target.name)) {
            insert_sorted(&mut stages[usize::from(stage_of[function])].ingresses, ingress);
        }
    }
    for at in 0..stages.len() {
        // Senders stand before their receivers, so theirs are complete.
        let senders = stages[at].senders.iter().flat_map(|sender| stages[usize::from(*sender)].sources.clone());
        let sources: Vec<usize> = senders.chain(stages[at].ingresses.clone()).collect();
        sources.into_iter().for_each(|ingress| insert_sorted(&mut stages[at].sources, ingress));
    }
    (stages, stage_of)
}

fn index_of(functions: &[FunctionSpec], name: &str) -> Option<usize> {
    functions.iter().position(|function| function.name == name)
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, value: T) {
    if let Err(place) = list.binary_search(&value) {
        list.insert(place, value);
    }
}

struct Tarjan<'a> {
    edges: &'a [Vec<usize>],
    next: usize,
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    parts: Vec<Vec<usize>>,
}

impl<'a> Tarjan<'a> {
    fn new(edges: &'a [Vec<usize>]) -> Self {
        let n = edges.len();
        Self {
            edges,
            next: 0,
            index: vec![None; n],
            low: vec![0; n],
            on_stack: vec![false; n],
            stack: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<Vec<usize>> {
        for at in 0..self.edges.len() {
            if self.index[at].is_none() {
                self.visit(at);
            }
        }
        self.parts
    }

    /// Recursion is as deep as the longest chain of functions that send to each other.
    fn visit(&mut self, at: usize) {
        self.index[at] = Some(self.next);
        self.low[at] = self.next;
        self.next += 1;
        self.stack.push(at);
        self.on_stack[at] = true;
        for &to in &self.edges[at] {
            match self.index[to] {
                None => {
                    self.visit(to);
                    self.low[at] = self.low[at].min(self.low[to]);
                }
                Some(index) if self.on_stack[to] => self.low[at] = self.low[at].min(index),
                Some(_) => {}
            }
        }
        if self.index[at] == Some(self.low[at]) {
            let first = self.stack.iter().rposition(|on| *on == at).expect("a visited function is on the stack");
            let mut part = self.stack.split_off(first);
            part.iter().for_each(|function| self.on_stack[*function] = false);
            part.sort_unstable();
            self.parts.push(part);
        }
    }
}
