//! The in-memory twin passes the cases of the port.

use gathering_auth::testing::MemoryAccounts;

async fn empty_store() -> Box<MemoryAccounts> {
    Box::new(MemoryAccounts::new())
}

gathering_auth::account_store_suite!(empty_store);
