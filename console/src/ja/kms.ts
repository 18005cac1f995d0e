export const kms: Record<string, string> = {};
