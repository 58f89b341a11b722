//! The basics: insert, get, remove, and the outcome of an insert.
//!
//! `cargo run --example quickstart`

use cortado::{Cache, Insert};

fn main() {
    // Room for a thousand entries. Cloning the cache clones a handle to it.
    let cache: Cache<String, u32> = Cache::new(1000);

    assert_eq!(cache.insert("espresso".to_string(), 30), Insert::Inserted);
    assert_eq!(cache.insert("espresso".to_string(), 25), Insert::Updated);

    // A key may be borrowed. The value is readable as long as the reference is held.
    let volume = cache.get("espresso").expect("inserted above");
    assert_eq!(*volume, 25);
    assert_eq!(volume.key(), "espresso");
    drop(volume);

    // A clone may be stored, sent to another thread, or held across an await.
    assert_eq!(cache.get_cloned("espresso"), Some(25));
    assert_eq!(cache.get_cloned("latte"), None);

    // Threads share it by reference or by handle.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for cup in 0..100 {
                    let insert = cache.insert(format!("cup {thread}/{cup}"), cup);
                    assert!(insert.is_in(), "there is room for all");
                }
            });
        }
    });
    assert!(cache.cost() <= cache.max_cost());
    println!("{} entries, {} of {} used", cache.len(), cache.cost(), cache.max_cost());

    // A removed value is returned, and remains readable.
    assert_eq!(cache.remove("espresso").as_deref(), Some(&25));
    assert!(!cache.contains_key("espresso"));

    cache.clear();
    assert!(cache.is_empty());
}
