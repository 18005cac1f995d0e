// The users' portal is not built yet.
export {};
