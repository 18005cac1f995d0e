export const iam: Record<string, string> = {};
