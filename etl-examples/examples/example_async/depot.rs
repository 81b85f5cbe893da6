//! What is a system that answers later? A depot, made up for this example: it takes a delivery now, and says later what became
//! of its parcels. Nothing in here knows of `etl`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};

/// So many parcels are put on their shelves while one waits.
const AT_ONCE: usize = 2;
/// So many are on one ticket.
const A_TICKET: usize = 5;

/// What a delivery is made of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Parcel {
    /// By what it is found again.
    pub(crate) label: String,
    /// What is in it; `None` takes it off its shelf.
    pub(crate) content: Option<Map<String, Value>>,
}

/// What one gets for a delivery.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Receipt {
    /// All of it is done already; a verdict a parcel.
    Done(Vec<Verdict>),
    /// It is done later. What to ask by, and how many parcels each is for, in their order.
    Tickets(Vec<(String, u32)>),
}

/// What became of a parcel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Shelved,
    ShelvedWith(String),
    BringItAgain(String),
    Refused(String),
}

/// How far a ticket is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    Waiting { percent: u8 },
    Done,
    Spoilt(String),
    Unknown,
}

/// Nothing was heard. Was the depot there?
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Silence {
    /// It was not: nothing has arrived.
    Unreachable,
    /// Perhaps: the line went dead.
    LineWentDead,
}

/// What goes wrong with the next thing that it is asked to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mishap {
    Unreachable,
    AnswerLost,
    /// A question, not a delivery.
    Deaf,
    Spoilt,
    Forgotten,
    NeverDone,
}

impl Mishap {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "unreachable" => Some(Self::Unreachable),
            "answer-lost" => Some(Self::AnswerLost),
            "deaf" => Some(Self::Deaf),
            "spoilt" => Some(Self::Spoilt),
            "forgotten" => Some(Self::Forgotten),
            "never-done" => Some(Self::NeverDone),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Depot(Arc<Mutex<Yard>>);

#[derive(Debug, Default)]
struct Yard {
    shelves: BTreeMap<String, Map<String, Value>>,
    /// By the name that its sender gave it: a delivery that comes twice is known again.
    deliveries: BTreeMap<String, Receipt>,
    tickets: BTreeMap<String, Ticket>,
    /// Labels of parcels that were sent away wet.
    drying: Vec<String>,
    mishaps: VecDeque<Mishap>,
    questions: usize,
}

#[derive(Debug)]
struct Ticket {
    parcels: Vec<Parcel>,
    percent: u8,
    mishap: Option<Mishap>,
    verdicts: Vec<Verdict>,
}

impl Depot {
    fn yard(&self) -> MutexGuard<'_, Yard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something go wrong, once.
    pub(crate) fn expect(&self, mishap: Mishap) {
        self.yard().mishaps.push_back(mishap);
    }

    /// Takes a delivery.
    pub(crate) fn deliver(&self, name: &str, parcels: Vec<Parcel>) -> Result<Receipt, Silence> {
        let mut yard = self.yard();
        let mishap = yard.mishaps.pop_front_if(|mishap| *mishap != Mishap::Deaf);
        if mishap == Some(Mishap::Unreachable) {
            return Err(Silence::Unreachable);
        }
        let receipt = match yard.deliveries.get(name) {
            Some(receipt) => receipt.clone(),
            None => yard.take(parcels, mishap),
        };
        eprintln!("depot: delivery {name}: {receipt:?}");
        yard.deliveries.insert(name.to_owned(), receipt.clone());
        if mishap == Some(Mishap::AnswerLost) { Err(Silence::LineWentDead) } else { Ok(receipt) }
    }

    /// Says how far tickets are, each in its turn. Half of the work is done from one question to the next.
    pub(crate) fn ask(&self, tickets: &[&str]) -> Result<Vec<Work>, Silence> {
        let mut yard = self.yard();
        yard.questions += 1;
        if yard.mishaps.pop_front_if(|mishap| *mishap == Mishap::Deaf).is_some() {
            return Err(Silence::Unreachable);
        }
        Ok(tickets.iter().map(|ticket| yard.work(ticket)).collect())
    }

    /// What became of a ticket's parcels, where it is done.
    pub(crate) fn verdicts(&self, ticket: &str) -> Option<Vec<Verdict>> {
        self.yard().tickets.get(ticket).filter(|ticket| ticket.percent == 100).map(|ticket| ticket.verdicts.clone())
    }

    /// Empties the shelves of all whose label begins so.
    pub(crate) fn clear(&self, prefix: &str) {
        self.yard().shelves.retain(|label, _| !label.starts_with(prefix));
    }

    /// What is on the shelves.
    pub(crate) fn shelves(&self) -> BTreeMap<String, Map<String, Value>> {
        self.yard().shelves.clone()
    }

    /// How many deliveries have come, and how many questions.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let yard = self.yard();
        (yard.deliveries.len(), yard.questions)
    }
}

impl Yard {
    fn take(&mut self, parcels: Vec<Parcel>, mishap: Option<Mishap>) -> Receipt {
        if parcels.len() <= AT_ONCE {
            return Receipt::Done(parcels.iter().map(|parcel| self.shelve(parcel)).collect());
        }
        let mut tickets = Vec::new();
        for parcels in parcels.chunks(A_TICKET) {
            let name = format!("T{}", self.tickets.len() + 1);
            tickets.push((name.clone(), parcels.len() as u32));
            // One ticket of a delivery is enough for a mishap.
            let mishap = mishap.filter(|_| tickets.len() == 1);
            self.tickets.insert(name, Ticket { parcels: parcels.to_vec(), percent: 0, mishap, verdicts: Vec::new() });
        }
        Receipt::Tickets(tickets)
    }

    fn work(&mut self, name: &str) -> Work {
        let Some(ticket) = self.tickets.get_mut(name) else { return Work::Unknown };
        match ticket.mishap {
            Some(Mishap::Forgotten) => return Work::Unknown,
            Some(Mishap::NeverDone) => return Work::Waiting { percent: 99 },
            Some(Mishap::Spoilt) => return Work::Spoilt("it rained in".to_owned()),
            _ if ticket.percent == 100 => return Work::Done,
            _ => ticket.percent += 50,
        }
        if ticket.percent < 100 {
            return Work::Waiting { percent: ticket.percent };
        }
        let parcels = std::mem::take(&mut ticket.parcels);
        let verdicts: Vec<Verdict> = parcels.iter().map(|parcel| self.shelve(parcel)).collect();
        eprintln!("depot: ticket {name}: {verdicts:?}");
        if let Some(ticket) = self.tickets.get_mut(name) {
            ticket.verdicts = verdicts;
        }
        Work::Done
    }

    fn shelve(&mut self, parcel: &Parcel) -> Verdict {
        let Some(content) = &parcel.content else {
            self.shelves.remove(&parcel.label);
            return Verdict::Shelved;
        };
        let is = |what: &str| content.values().any(|value| value == what);
        if is("damaged") {
            return Verdict::Refused("it is damaged".to_owned());
        }
        if is("wet") && !self.drying.contains(&parcel.label) {
            self.drying.push(parcel.label.clone());
            return Verdict::BringItAgain("it is wet".to_owned());
        }
        // What is not said of a parcel stays as it is.
        self.shelves.entry(parcel.label.clone()).or_default().extend(content.clone());
        if is("heavy") { Verdict::ShelvedWith("it is heavy".to_owned()) } else { Verdict::Shelved }
    }
}
