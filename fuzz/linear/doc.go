// Package linear records what concurrent callers of Receiver.Do saw, and has porcupine look for an order of the calls,
// one at a time, that explains all of it. There is none if fn ran twice for a key, if somebody got a result that nobody
// had stored, or if a result was seen and was gone later.
//
// It is a module of its own, so that those who use oncelog never see its dependency.
package linear
