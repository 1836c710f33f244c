use serde_json::json;

use super::*;

fn new(id: &str, owner: Option<&str>, previous: Option<Arc<Turn>>, text: &str) -> NewEntry {
    NewEntry {
        id: id.into(),
        owner: owner.map(Into::into),
        kept: true,
        background: false,
        previous,
        input: [Arc::new(json!({ "id": format!("{id}-in"), "text": text }))].into(),
        object: json!({ "status": "in_progress" }),
    }
}

fn ended(store: &Arc<Store>, new: NewEntry) -> Option<Arc<Turn>> {
    let (id, owner) = (new.id.clone(), new.owner.clone());
    store.open(new).end(json!({ "id": id }), vec![Arc::new(json!({ "id": format!("{id}-out") }))]);
    store.get(&id, &owner)?.state().turn
}

#[test]
fn the_least_used_goes_first() {
    let store = Arc::new(Store::new(Limits { responses: 2, ..Limits::default() }));
    ended(&store, new("a", None, None, ""));
    ended(&store, new("b", None, None, ""));
    assert!(store.get("a", &None).is_some());
    ended(&store, new("c", None, None, ""));
    let there: Vec<bool> = ["a", "b", "c"].map(|id| store.get(id, &None).is_some()).into();
    assert_eq!(there, [true, false, true]);
    assert!(store.item("a-out", &None).is_some() && store.item("b-out", &None).is_none());
}

#[test]
fn bytes_are_bounded_and_given_back() {
    let store = Arc::new(Store::new(Limits { bytes: 40_000, ..Limits::default() }));
    let text = "x".repeat(10_000);
    for number in 0..20 {
        ended(&store, new(&number.to_string(), None, None, &text));
        assert!(store.bytes.load(SeqCst) <= 40_000);
    }
    assert_eq!(store.lock().ended.len(), 3);
    for number in 17..20 {
        assert!(store.remove(&number.to_string(), &None).is_some());
    }
    assert_eq!(store.bytes.load(SeqCst), 0);
    assert!(store.lock().items.is_empty() && store.lock().by_use.is_empty());
    // One that is larger than everything leaves nothing behind.
    assert!(ended(&store, new("huge", None, None, &"x".repeat(50_000))).is_none());
    assert_eq!(store.bytes.load(SeqCst), 0);
}

#[test]
fn a_conversation_outlives_its_responses() {
    let store = Arc::new(Store::default());
    let first = ended(&store, new("a", None, None, ""));
    let second = ended(&store, new("b", None, first, "")).unwrap();
    assert!(store.remove("a", &None).is_some());
    let ids: Vec<String> = second.items().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["a-in", "a-out", "b-in", "b-out"]);
    assert!(store.get("a", &None).is_none());
}

#[test]
fn a_long_conversation_ends_without_a_deep_stack() {
    let store = Arc::new(Store::new(Limits { responses: 1, ..Limits::default() }));
    let mut turn = None;
    for number in 0..100_000 {
        turn = ended(&store, new(&number.to_string(), None, turn, ""));
    }
    drop(turn);
    store.remove("99999", &None);
    assert_eq!(store.bytes.load(SeqCst), 0);
}

#[test]
fn nobody_sees_anothers() {
    let store = Arc::new(Store::default());
    let (mine, yours): (Owner, Owner) = (Some("me".into()), Some("you".into()));
    let open = store.open(new("a", Some("me"), None, ""));
    for (owner, seen) in [(&mine, true), (&yours, false), (&None, false)] {
        assert_eq!((store.get("a", owner).is_some(), store.live("a", owner).is_some()), (seen, seen));
    }
    open.end(json!({}), Vec::new());
    for (owner, seen) in [(&yours, false), (&None, false), (&mine, true)] {
        assert_eq!((store.get("a", owner).is_some(), store.item("a-in", owner).is_some()), (seen, seen));
        assert_eq!(store.remove("a", owner).is_some(), seen);
    }
}

#[test]
fn what_is_not_to_be_kept_is_not() {
    let store = Arc::new(Store::default());
    let open = store.open(NewEntry { kept: false, ..new("a", None, None, "") });
    assert!(store.get("a", &None).is_none() && store.live("a", &None).is_some());
    open.end(json!({}), Vec::new());
    // Deleted while it was under way.
    let open = store.open(new("b", None, None, ""));
    assert!(store.remove("b", &None).is_some() && store.get("b", &None).is_none());
    open.end(json!({}), Vec::new());
    assert!(store.get("b", &None).is_none() && store.live("b", &None).is_none());
    assert_eq!(store.bytes.load(SeqCst), 0);
}
