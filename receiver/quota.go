package receiver

// Quota is how much the keys of a scope, not those of the scopes below it, may take up in the store. 0 = any amount.
// Keys count while they are live and while they are claimed; results count when they are recorded, so the calls that
// run at the moment may exceed Bytes by theirs. What is live is never evicted: who comes when the quota is used up gets
// ErrQuota, before fn.
type Quota struct {
	Keys  int64
	Bytes int64 // of records on disk, keys included
}
