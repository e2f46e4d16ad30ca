// Package receivertest holds what every receiver.Store must do, as tests that run on any of them:
//
//	func TestMyStore(t *testing.T) {
//		receivertest.Run(t, func(t testing.TB) *receivertest.Backend { ... })
//	}
//
// Run has two parts. The contract (contract.go) talks to the store alone: claims, tokens, results, expiry. The rules
// (rules.go and its neighbours) run the Receiver over the store and check each rule of Do by its number.
//
// Leased is a second store beside the embedded one: in memory, but behaving like a remote one, with leases that end,
// answers that are lost after their effect, and no word when a key changes. A seam with one store behind it is a guess;
// Leased is there so that this one is not.
//
// The package makes no compatibility promise: it grows as the seam does.
package receivertest
