//! Warm restart: the entries of a cache are written to a file and read into the next cache.
//!
//! `cargo run --features serde --example warm_restart`

use std::{error::Error, fs, time::Duration};

use cortado::{Cache, ExportedEntry};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("cortado-{}.json", std::process::id()));

    let old: Cache<u32, String> = Cache::new(1000);
    for page in 0..100 {
        assert!(old.insert_with_cost(page, format!("page {page}"), 5).is_in());
    }
    // Every other request is for page 7.
    for request in 0..500 {
        let page = if request % 2 == 0 { 7 } else { request % 100 };
        assert!(old.get(&page).is_some());
    }
    assert!(old.insert_with_ttl(100, "news".into(), Duration::from_secs(600)).is_in());

    // Copied in parts: the file may be slow, and no garbage is held back.
    let records: Vec<_> = old.export().collect();
    fs::write(&path, serde_json::to_vec(&records)?)?;

    // The next process.
    let records: Vec<ExportedEntry<u32, String>> = serde_json::from_slice(&fs::read(&path)?)?;
    fs::remove_file(&path)?;
    let new: Cache<u32, String> = Cache::new(1000);
    // An entry that was inserted before the import is newer, and is kept.
    assert!(new.insert(0, "newer".into()).is_in());
    let imported = new.import(records);
    assert_eq!((imported.inserted, imported.kept, imported.rejected), (old.len() - 1, 1, 0));

    assert_eq!(new.get_cloned(&0).as_deref(), Some("newer"));
    assert_eq!(new.peek(&7).map(|entry| entry.cost()), Some(5));
    assert!(new.frequency(&7) > new.frequency(&8), "the popular one is known as such");
    assert!(new.entry_info(&100).and_then(|info| info.ttl) <= Some(Duration::from_secs(600)));
    assert!(new.entry_info(&100).is_some_and(|info| info.ttl.is_some()));
    println!("{} entries carried over, {} kept", imported.inserted, imported.kept);
    Ok(())
}
