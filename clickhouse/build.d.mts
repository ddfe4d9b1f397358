/** Types of build.mjs, which is plain Node because it runs before anything is installed. */
export declare function buildClickHouseHost(options?: { log?: (line: string) => void }): Promise<string>;
